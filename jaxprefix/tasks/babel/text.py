"""babel-text: what the embedded model is pretrained on, as a task that the one trainer trains."""

import re
from itertools import islice
from pathlib import Path

from jaxprefix.errors import InputError
from jaxprefix.tasks.babel.documents import SKEW, lessons, shares
from jaxprefix.tasks.metrics import score_generated
from jaxprefix.tasks.task import Example, Row, Task, check_languages

ROWS = 300_000
"""Documents, of all languages together."""


def split_of(skew: float) -> str:
    """The name of the documents with this skew: "skew=2.0"."""
    return f"skew={float(skew)}"


def load(language: str, split: str, data: Path | None) -> list[Row]:
    """The documents with the skew that the split names, made here. InputError for any other split, or language."""
    check_languages(BABEL_TEXT, (language,))
    named = re.fullmatch(r"skew=(\d+(?:\.\d+)?)", split)
    if not named:
        raise InputError(f"task babel-text has no split {split!r}; it has {split_of(SKEW)} and the like")
    weights = shares(float(named[1]))
    found = islice(lessons(0, weights), ROWS)
    return [{"id": str(place), "given": lesson.given, "told": lesson.told} for place, lesson in enumerate(found)]


def example(row: Row, language: str) -> Example:
    """The given part is read and the rest learnt: nobody can foretell who will be where."""
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
    note="What the embedded model is pretrained on: all languages together.",
)
