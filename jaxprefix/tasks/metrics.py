"""Compares what a model said with what is accepted, as the evaluation script of SQuAD v1.1 does (arXiv:1606.05250).

The normalisation is English (articles, ASCII punctuation) in every language: that is how XQuAD's scores are published.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

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
    """Harmonic mean of precision and recall over the words, each counted as often as it occurs.

    0 where no word is shared, thus also where both are empty: the script of v1.1 has it so (that of v2.0 says 1).
    """
    predicted, accepted = normalise(prediction).split(), normalise(reference).split()
    shared = (Counter(predicted) & Counter(accepted)).total()
    return 2 * shared / (len(predicted) + len(accepted)) if shared else 0.0


def best(metric: Callable[[str, str], float], prediction: str, references: Sequence[str]) -> float:
    """The metric against the reference that suits the prediction best; there must be one."""
    return max(metric(prediction, reference) for reference in references)


def accuracy(prediction: str, reference: str) -> float:
    """1 where the chosen text is the right one, to the letter, else 0."""
    return float(prediction == reference)


def first_line(text: str) -> str:
    """The answer within a generated text: its first line that is not blank, stripped; "" where there is none.

    A base model does not stop after its answer but goes on in new lines.
    """
    return next((line.strip() for line in text.split("\n") if line.strip()), "")


def score_generated(predicted: str, example: Example) -> dict[str, float]:
    """F1 and exact match of a generated text, read as its first line, against the example's references."""
    answer = first_line(predicted)
    return {"f1": best(f1, answer, example.references), "em": best(exact_match, answer, example.references)}


def score_choice(predicted: str, example: Example) -> dict[str, float]:
    """Accuracy of the choice that the model found likeliest."""
    return {"accuracy": accuracy(predicted, example.response)}
