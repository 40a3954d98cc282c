"""Reads the columns of a row; what is missing or wrong is refused in one line that says where the row stands."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from jaxprefix.errors import InputError
from jaxprefix.io.messages import short_repr, truncate
from jaxprefix.io.rows import Row as PlacedRow
from jaxprefix.tasks.task import Row

Value = TypeVar("Value")


def row_error(row: Row, message: str) -> InputError:
    """The error for a row: its file and line, or data set and number, and the message."""
    where = row.location if isinstance(row, PlacedRow) else f"row {row.get('id')!r}"
    return InputError(f"{where}: {message}")


def text_of(row: Row, column: str) -> str:
    """The text that a row has in a column, without surrounding space; InputError where there is none."""
    value = value_of(row, column)
    if not isinstance(value, str):
        raise row_error(row, f"{column!r} is {short_repr(value)}; expected text")
    return value.strip()


def filled_text_of(row: Row, column: str) -> str:
    """`text_of` that refuses blank text as well: of choices, because nothing is no choice."""
    if not (text := text_of(row, column)):
        raise row_error(row, f"{column!r} is blank; expected text")
    return text


def one_of(row: Row, column: str, meanings: Mapping[str, Value]) -> Value:
    """What a word or number stands for; InputError, with those that are known, for any other.

    Numbers may be digits, where they come from a text file, and end in ".0", as pandas writes a column with gaps.
    """
    value = value_of(row, column)
    key = "" if isinstance(value, bool) else str(value).removesuffix(".0")
    if key not in meanings:
        raise row_error(row, f"{column!r} is {short_repr(value)}; expected one of {', '.join(meanings)}")
    return meanings[key]


def value_of(row: Row, column: str) -> object:
    """What a row has in a column; InputError, with the row's columns, where it has no such column."""
    if column not in row:
        raise row_error(row, f"no {column!r}; its columns: {truncate(', '.join(map(str, row)))}")
    return row[column]


def with_ids(rows: Sequence[PlacedRow]) -> list[Row]:
    """Gives rows of a set that has no ids their place in the split; parallel sets agree on it across languages."""
    return [PlacedRow({"id": str(place), **row}, row.source, row.number) for place, row in enumerate(rows)]
