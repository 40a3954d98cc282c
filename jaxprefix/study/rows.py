"""The labels of a table's rows, and its values, as text."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxprefix.evaluation.report.cells import MISSING

UNTITLED = ("method", "model", "task")  # axes whose values speak for themselves


def axes_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row["labels"]))


def labels_of(row: Mapping[str, Any], axes: Sequence[str]) -> list[str]:
    return [text_of(row["labels"].get(name)) for name in axes]


def text_of(value: Any) -> str:
    return MISSING if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def title_of(axis: str) -> str:
    return axis.removeprefix("evaluation.").replace("_", " ")


def name_of(labels: Mapping[str, Any]) -> str:
    """The settings of a row, the method first, such as "lora, rank 4"."""
    axes = sorted((axis for axis, value in labels.items() if value is not None), key=lambda axis: axis != "method")
    titles = {axis: "" if axis in UNTITLED else f"{title_of(axis).rpartition('.')[2]} " for axis in axes}
    return ", ".join(f"{titles[axis]}{text_of(labels[axis])}" for axis in axes)


def rate_of(row: Mapping[str, Any]) -> str:
    """The chosen learning rate."""
    if row["tried"] and not row["cells"]:
        return "none"
    return "default" if row["rate"] is None and row["tried"] else text_of(row["rate"])


def value_of(estimate: Mapping[str, Any] | None) -> float | None:
    return None if estimate is None else estimate["value"]
