"""What of a text is the answer, and how an answer is set beside what is right."""

from collections.abc import Callable, Sequence

from jaxprefix.tasks.task import Example


def first_line(text: str) -> str:
    """The answer within a generated text: its first line that is not blank, stripped; "" where there is none.

    A base model does not stop after its answer but goes on in new lines.
    """
    return next((line.strip() for line in text.split("\n") if line.strip()), "")


def best(metric: Callable[[str, str], float], prediction: str, references: Sequence[str]) -> float:
    """The metric against the reference that suits the prediction best; there must be one."""
    return max(metric(prediction, reference) for reference in references)


def accuracy(prediction: str, reference: str) -> float:
    """1 where the chosen text is the right one, to the letter, else 0."""
    return float(prediction == reference)


def score_choice(predicted: str, example: Example) -> dict[str, float]:
    """Accuracy of the choice that the model found likeliest."""
    return {"accuracy": accuracy(predicted, example.response)}
