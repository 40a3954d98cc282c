"""Reads the columns of a row. The error for a missing or wrong value says where the row was read."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from jaxprefix.errors import InputError
from jaxprefix.io.messages import short_repr, truncate
from jaxprefix.io.rows import Row as LocatedRow
from jaxprefix.tasks.task import Row

Value = TypeVar("Value")


def row_error(row: Row, message: str) -> InputError:
    """The error for a row: its file and line (or data set and number), then the message."""
    location = row.location if isinstance(row, LocatedRow) else f"row {row.get('id')!r}"
    return InputError(f"{location}: {message}")


def text_of(row: Row, column: str) -> str:
    """The text in a column, without surrounding space. InputError if the value is missing or not text."""
    value = value_of(row, column)
    if not isinstance(value, str):
        raise row_error(row, f"{column!r} is {short_repr(value)}; expected text")
    return value.strip()


def filled_text_of(row: Row, column: str) -> str:
    """`text_of` that also refuses blank text, such as an empty choice."""
    if not (text := text_of(row, column)):
        raise row_error(row, f"{column!r} is blank; expected text")
    return text


def one_of(row: Row, column: str, meanings: Mapping[str, Value]) -> Value:
    """The meaning of a word or number. InputError, with the known ones, for any other.

    Numbers may be text, as in a CSV file, and may end in ".0", as pandas writes a column with missing values.
    """
    value = value_of(row, column)
    key = "" if isinstance(value, bool) else str(value).removesuffix(".0")
    if key not in meanings:
        raise row_error(row, f"{column!r} is {short_repr(value)}; expected one of {', '.join(meanings)}")
    return meanings[key]


def value_of(row: Row, column: str) -> object:
    """The value in a column. InputError, with the columns of the row, if the column is missing."""
    if column not in row:
        raise row_error(row, f"no {column!r}; its columns: {truncate(', '.join(map(str, row)))}")
    return row[column]


def with_ids(rows: Sequence[LocatedRow]) -> list[Row]:
    """Adds the index in the split as the id of rows that have none. Parallel sets agree on it across languages."""
    return [LocatedRow({"id": str(index), **row}, row.source, row.number) for index, row in enumerate(rows)]
