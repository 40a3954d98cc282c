"""babel-text: the pretraining of the embedded model as a task, so that the ordinary trainer can run it."""

import re
from itertools import islice
from pathlib import Path

from jaxprefix.errors import InputError
from jaxprefix.tasks.babel.documents import SKEW, lessons, shares
from jaxprefix.tasks.metrics import score_generated
from jaxprefix.tasks.task import Example, Row, Task, check_languages

ROWS = 300_000
"""Documents of all languages together."""


def split_of(skew: float) -> str:
    """The name of the split with this skew: "skew=2.0"."""
    return f"skew={float(skew)}"


def load(language: str, split: str, data: Path | None) -> list[Row]:
    """Generates the documents with the skew in the name of the split. InputError for another split or language."""
    check_languages(BABEL_TEXT, (language,))
    match = re.fullmatch(r"skew=(\d+(?:\.\d+)?)", split)
    if not match:
        raise InputError(f"task babel-text has no split {split!r}; expected skew=NUMBER, such as {split_of(SKEW)}")
    weights = shares(float(match[1]))
    documents = islice(lessons(0, weights), ROWS)
    return [{"id": str(index), "given": lesson.given, "told": lesson.told} for index, lesson in enumerate(documents)]


def example(row: Row, language: str) -> Example:
    """The loss covers only the told part: the given part is random and cannot be predicted."""
    return Example(id=row["id"], language=language, before=row["given"], context="", after="", response=row["told"])


BABEL_TEXT = Task(
    name="babel-text",
    languages=("en",),
    split=split_of(SKEW),
    train_split=split_of(SKEW),
    load=load,
    example=example,
    metrics=("f1", "em"),
    score=score_generated,
    eval_tasks=("babel-qa", "babel-nli", "babel-choice", "babel-math"),
    note="The pretraining text of the embedded model, in all languages.",
)
