"""Compares answers as the evaluation script of MLQA does (arXiv:1910.07475): with rules for each language.

Unlike the rules of SQuAD, these remove Unicode punctuation and the articles of each language, and count Chinese by
characters.

The rule of the script for Arabic has a defect. It is meant to remove the article at the start of words, but its pattern
removes the letters alif-lam anywhere and leaves a space. Thus "مجال" (field) becomes "مج", and
"سؤاله" (his question) the two words "سؤ ه", so that different words can match, and one word can match
in part. Published figures have this defect; the "fixed" variant removes the article only at the start of words.
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
# Only the common block, as in the script: rarer characters are treated like letters.
_CHINESE = re.compile("([\u4e00-\u9fa5])")


def normalise(text: str, language: str, fixed: bool = False) -> str:
    """Lower case, without punctuation and articles, with single spaces between words.

    In Chinese every character is a word. `fixed` corrects Arabic. Languages that MLQA lacks keep their articles.
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
    # Unicode counts some ASCII punctuation, such as "$" and "+", as symbols.
    return unicodedata.category(letter).startswith("P") or letter in string.punctuation


def f1(prediction: str, reference: str, language: str, fixed: bool = False) -> float:
    """Harmonic mean of precision and recall over the normalised words."""
    return overlap(normalise(prediction, language, fixed).split(), normalise(reference, language, fixed).split())


def exact_match(prediction: str, reference: str, language: str, fixed: bool = False) -> float:
    """1 if both are equal after normalisation, else 0."""
    return float(normalise(prediction, language, fixed) == normalise(reference, language, fixed))


def score_by_language(answer: str, example: Example) -> dict[str, float]:
    """F1 and exact match with the rules of the language, each also with the Arabic rule corrected."""
    scores = {}
    for name, fixed in (("", False), ("_fixed", True)):
        for metric, rule in (("f1", f1), ("em", exact_match)):
            scores[metric + name] = best(
                lambda one, other, rule=rule, fixed=fixed: rule(one, other, example.language, fixed),
                answer,
                example.references,
            )
    return scores
