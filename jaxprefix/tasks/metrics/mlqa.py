"""Compares answers as the evaluation script of MLQA does (arXiv:1910.07475): by the rules of the answer's language.

Unlike SQuAD's rules these drop Unicode's punctuation and each language's own articles, and count Chinese by characters.

The script's rule for Arabic has a defect: meant to drop the article at the front of words, its pattern takes the
letters alif-lam away wherever they stand, and leaves a space there. Thus "مجال" (field) becomes "مج", and
"سؤاله" (his question) the two words "سؤ ه", so that different words can match, and one word can match
in part. What is published was scored so; the "fixed" variant drops the article at the front of words alone.
"""

import re
import string
import unicodedata
from functools import cache

from jaxprefix.tasks.metrics.answers import best
from jaxprefix.tasks.metrics.squad import overlap
from jaxprefix.tasks.task import Example

_ARTICLES = {
    "en": re.compile(r"\b(?:a|an|the)\b"),
    "es": re.compile(r"\b(?:un|una|unos|unas|el|la|los|las)\b"),
    "vi": re.compile(r"\b(?:của|là|cái|chiếc|những)\b"),
    "de": re.compile(r"\b(?:ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b"),
    "ar": re.compile("\u0627\u0644"),  # alif, lam
}
_ARABIC_ARTICLE = re.compile(r"(?<!\S)\u0627\u0644(?=\S)")
# The common block alone, as in the script: rarer characters stay together like letters.
_CHINESE = re.compile("([\u4e00-\u9fa5])")


def normalise(text: str, language: str, fixed: bool = False) -> str:
    """Lower case, without punctuation, then without the language's articles; words apart by one space.

    In Chinese every character is a word. `fixed` mends Arabic; a language that MLQA lacks has no articles.
    """
    bare = "".join(letter for letter in text.lower() if not _is_punctuation(letter))
    article = _ARABIC_ARTICLE if fixed and language == "ar" else _ARTICLES.get(language)
    if article:
        bare = article.sub(" ", bare)
    if language == "zh":
        bare = _CHINESE.sub(r" \1 ", bare)
    return " ".join(bare.split())


@cache
def _is_punctuation(letter: str) -> bool:
    # ASCII has some, such as "$" and "+", that Unicode counts as symbols.
    return unicodedata.category(letter).startswith("P") or letter in string.punctuation


def f1(prediction: str, reference: str, language: str, fixed: bool = False) -> float:
    """Harmonic mean of precision and recall over the words of both, once normalised."""
    return overlap(normalise(prediction, language, fixed).split(), normalise(reference, language, fixed).split())


def exact_match(prediction: str, reference: str, language: str, fixed: bool = False) -> float:
    """1 where both are equal once normalised, else 0."""
    return float(normalise(prediction, language, fixed) == normalise(reference, language, fixed))


def score_by_language(answer: str, example: Example) -> dict[str, float]:
    """F1 and exact match by the rules of the example's language, and both with the Arabic ones mended."""
    found = {}
    for name, fixed in (("", False), ("_fixed", True)):
        for metric, rule in (("f1", f1), ("em", exact_match)):
            found[metric + name] = best(
                lambda one, other, rule=rule, fixed=fixed: rule(one, other, example.language, fixed),
                answer,
                example.references,
            )
    return found
