"""What the tasks of the embedded world share: their splits, and how their rows are made."""

from collections.abc import Callable
from functools import cache
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from jaxprefix.errors import InputError
from jaxprefix.tasks.babel.language import Language
from jaxprefix.tasks.babel.world import LANGUAGES, SPLITS, Instance, find_language, instances
from jaxprefix.tasks.task import Row

ROWS = {"train": 4000, "validation": 200, "test": 100}
"""Rows a language in each split; ids agree across languages."""
LEAKS = {"test": "it is what evaluation asks, and its rows say the same in every language"}
NOTE = (
    "A toy world: its figures say nothing about the real languages. The embedded model has read twice as much in a "
    "language as in one of the resource class below it."
)

Draw = Callable[[Random], Instance]
Say = Callable[[Language, Instance], dict[str, Any]]


def loader(name: str, draw: Draw, say: Say) -> Callable[[str, str, Path | None], list[Row]]:
    """`Task.load` of the task `name`, whose instances `draw` makes and of which `say` says one in a language.

    A local mirror is not read: rows are made here. InputError for an unknown language or split.
    """

    @cache
    def drawn(split: str) -> tuple[Instance, ...]:
        return tuple(islice(instances(split, name, draw), ROWS[split]))

    def load(language: str, split: str, data: Path | None) -> list[Row]:
        if language not in LANGUAGES:
            raise InputError(f"task {name} has no language {language!r}; it has {', '.join(LANGUAGES)}")
        if split not in ROWS:
            raise InputError(f"task {name} has no split {split!r}; it has {', '.join(SPLITS)}")
        words = find_language(language)
        return [{"id": f"{split}-{place}"} | say(words, each) for place, each in enumerate(drawn(split))]

    return load
