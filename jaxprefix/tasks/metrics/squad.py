"""Compares answers as the evaluation script of SQuAD v1.1 does (arXiv:1606.05250).

The normalisation is English (articles, ASCII punctuation) in every language, as in the published scores of XQuAD.
"""

import re
import string
from collections import Counter

from jaxprefix.tasks.metrics.answers import best
from jaxprefix.tasks.task import Example

_ARTICLE = re.compile(r"\b(?:the|an|a)\b")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """Lower case, without ASCII punctuation and English articles, with single spaces between words."""
    # Punctuation is removed first and leaves no space, so "the-end" becomes one word and keeps its article.
    bare = text.lower().translate(_WITHOUT_PUNCTUATION)
    return " ".join(_ARTICLE.sub(" ", bare).split())


def exact_match(prediction: str, reference: str) -> float:
    """1 if both are equal after normalisation, else 0."""
    return float(normalise(prediction) == normalise(reference))


def f1(prediction: str, reference: str) -> float:
    """`overlap` of the normalised words."""
    return overlap(normalise(prediction).split(), normalise(reference).split())


def overlap(predicted: list[str], accepted: list[str]) -> float:
    """Harmonic mean of precision and recall over words, each counted as often as it occurs.

    0 if no word is shared, even if both are empty, as in the script of v1.1 (that of v2.0 returns 1).
    """
    shared = (Counter(predicted) & Counter(accepted)).total()
    return 2 * shared / (len(predicted) + len(accepted)) if shared else 0.0


def score_generated(answer: str, example: Example) -> dict[str, float]:
    """F1 and exact match of an answer against the example's references."""
    return {"f1": best(f1, answer, example.references), "em": best(exact_match, answer, example.references)}
