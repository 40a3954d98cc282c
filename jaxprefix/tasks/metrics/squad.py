"""Compares what a model said with what is accepted, as the evaluation script of SQuAD v1.1 does (arXiv:1606.05250).

The normalisation is English (articles, ASCII punctuation) in every language: that is how XQuAD's scores are published.
"""

import re
import string
from collections import Counter

from jaxprefix.tasks.metrics.answers import best
from jaxprefix.tasks.task import Example

_ARTICLE = re.compile(r"\b(?:the|an|a)\b")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """Lower case; without ASCII punctuation, then without English articles; words apart by one space."""
    # Punctuation goes first, and leaves no space: "the-end" becomes one word, whose article then stays.
    bare = text.lower().translate(_WITHOUT_PUNCTUATION)
    return " ".join(_ARTICLE.sub(" ", bare).split())


def exact_match(prediction: str, reference: str) -> float:
    """1 where both are equal once normalised, else 0."""
    return float(normalise(prediction) == normalise(reference))


def f1(prediction: str, reference: str) -> float:
    """`overlap` of the words of both, once normalised."""
    return overlap(normalise(prediction).split(), normalise(reference).split())


def overlap(predicted: list[str], accepted: list[str]) -> float:
    """Harmonic mean of precision and recall over words, each counted as often as it occurs.

    0 where no word is shared, thus also where both are empty: the script of v1.1 has it so (that of v2.0 says 1).
    """
    shared = (Counter(predicted) & Counter(accepted)).total()
    return 2 * shared / (len(predicted) + len(accepted)) if shared else 0.0


def score_generated(answer: str, example: Example) -> dict[str, float]:
    """F1 and exact match of an answer against the example's references."""
    return {"f1": best(f1, answer, example.references), "em": best(exact_match, answer, example.references)}
