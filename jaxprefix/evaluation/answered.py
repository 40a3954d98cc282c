"""The rows of a run's predictions.jsonl, read strictly: what is compared must be whole."""

from collections.abc import Mapping
from pathlib import Path

from jaxprefix.evaluation.predictions import PREDICTIONS
from jaxprefix.rowfiles import Row, read_rows

KINDS = {str: "a text", int: "a whole number", list: "a list", dict: "an object"}
FIELDS: Mapping[str, type] = {
    "task": str,
    "language": str,
    "id": str,
    "prompt": str,
    "references": list,
    "choices": list,
    "scores": dict,
    "step": int,
}


def read_answered(directory: Path) -> list[Row]:
    """The rows of the last step that was evaluated.

    Raises:
        ValueError: no file, or a row that is damaged or lacks what it must have, by its line.
    """
    path = directory / PREDICTIONS
    if not path.is_file():
        raise ValueError(f"{directory} has no {PREDICTIONS}; evaluate it: python -m jaxprefix.evaluation {directory}")
    rows = [_checked(row) for row in read_rows(path)]
    last = max(row["step"] for row in rows)
    return [row for row in rows if row["step"] == last]


def _checked(row: Row) -> Row:
    for name, kind in FIELDS.items():
        if not isinstance(row.get(name), kind):
            given = repr(row[name]) if name in row else "nothing"
            raise ValueError(f"{row.where}: {name} is {given:.60}, expected {KINDS[kind]}; evaluate again")
    for name, value in row["scores"].items():
        if not isinstance(value, int | float) or not 0 <= value <= 1:
            raise ValueError(f"{row.where}: its score {name} is {value!r:.60}, expected 0..1; evaluate again")
    if not row["scores"]:
        raise ValueError(f"{row.where}: it has no scores; evaluate again")
    return row
