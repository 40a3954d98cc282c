"""Extracts the answer from a text and compares it with the correct ones."""

from collections.abc import Callable, Sequence

from jaxprefix.tasks.task import Example


def first_line(text: str) -> str:
    """The first line of a generated text that is not blank, stripped; "" if there is none.

    A base model does not stop after its answer but continues on new lines.
    """
    return next((line.strip() for line in text.split("\n") if line.strip()), "")


def best(metric: Callable[[str, str], float], prediction: str, references: Sequence[str]) -> float:
    """The highest value of the metric over the references, of which there must be one."""
    return max(metric(prediction, reference) for reference in references)


def accuracy(prediction: str, reference: str) -> float:
    """1 if the texts are identical, else 0."""
    return float(prediction == reference)


def score_choice(predicted: str, example: Example) -> dict[str, float]:
    """Accuracy of the most likely choice."""
    return {"accuracy": accuracy(predicted, example.response)}
