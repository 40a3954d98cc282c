"""The splits of the embedded world's tasks, and how their rows are generated."""

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
"""Rows per language in each split. Ids agree across languages."""
LEAKS = {"test": "evaluation uses it, and its rows are parallel across languages"}
NOTE = (
    "A toy world: its figures say nothing about the real languages. The embedded model has read twice as much in a "
    "language as in one of the resource class below."
)

Draw = Callable[[Random], Instance]
Say = Callable[[Language, Instance], dict[str, Any]]


def loader(name: str, draw: Draw, say: Say) -> Callable[[str, str, Path | None], list[Row]]:
    """The function `Task.load` of the task `name`. `draw` samples an instance; `say` writes it as a row in a language.

    The rows are generated, and a local mirror is ignored. The function raises InputError for an unknown language or
    split.
    """

    @cache
    def sampled(split: str) -> tuple[Instance, ...]:
        return tuple(islice(instances(split, name, draw), ROWS[split]))

    def load(language: str, split: str, data: Path | None) -> list[Row]:
        if language not in LANGUAGES:
            raise InputError(f"task {name} has no language {language!r}; it has {', '.join(LANGUAGES)}")
        if split not in ROWS:
            raise InputError(f"task {name} has no split {split!r}; it has {', '.join(SPLITS)}")
        words = find_language(language)
        return [{"id": f"{split}-{number}"} | say(words, instance) for number, instance in enumerate(sampled(split))]

    return load
