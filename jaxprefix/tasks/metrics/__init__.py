"""How answers are scored, one file per scheme. The names below serve several tasks."""

from jaxprefix.tasks.metrics.answers import accuracy, best, first_line, score_choice
from jaxprefix.tasks.metrics.squad import exact_match, f1, normalise, score_generated

__all__ = [
    "accuracy",
    "best",
    "exact_match",
    "f1",
    "first_line",
    "normalise",
    "score_choice",
    "score_generated",
]
