"""Reads files of rows. Every row has its location, for error messages."""

import csv
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from jaxprefix.errors import InputError
from jaxprefix.io.messages import one_line, short_repr
from jaxprefix.io.strict_json import parse

BOM = b"\xef\xbb\xbf"  # the byte order mark that some programs write
ENDINGS = ("jsonl", "json", "parquet", "csv")


class Row(dict[str, Any]):
    """The columns of a row, and where they were read."""

    def __init__(self, columns: Mapping[str, Any], source: str, number: int) -> None:
        """`number` counts from 1: the lines of `source` if it ends with ":", else its rows."""
        super().__init__(columns)
        self.source = source
        self.number = number

    @property
    def location(self) -> str:
        """ "FILE:12" for a line of a file, "SOURCE: row 12" for a row of anything else."""
        return f"{self.source}{self.number}" if self.source.endswith(":") else f"{self.source}: row {self.number}"


Rows = list[Row]


def with_locations(rows: Iterable[Mapping[str, Any]], source: object) -> Rows:
    """The rows, numbered from 1."""
    return [Row(row, str(source), number) for number, row in enumerate(rows, start=1)]


def read_rows(path: Path) -> Rows:
    """The rows of a .jsonl, .json (a list of objects), .parquet or .csv (with a header) file, with or without a BOM.

    Raises:
        InputError: no such file, an unknown extension, no rows, or a malformed row. The message names file and line or
        row.
    """
    readers: dict[str, Callable[[Path], Rows]] = {
        ".jsonl": _jsonl,
        ".json": _json,
        ".parquet": _parquet,
        ".csv": _csv,
    }
    if path.suffix.lower() not in readers:
        raise InputError(f"{path}: expected rows in a .jsonl, .json, .parquet or .csv file, not {path.suffix or path}")
    if not path.is_file():
        raise InputError(f"no such file: {path}")
    try:
        rows = readers[path.suffix.lower()](path)
    except OSError as error:  # no permission, or a failing disk
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    if not rows:
        raise InputError(f"{path} has no rows")
    return rows


def _jsonl(path: Path) -> Rows:
    return parse_lines(path.read_bytes(), path)


def parse_lines(content: bytes, path: Path) -> Rows:
    """The rows in the content of a .jsonl file. InputError for a line that is not a JSON object."""
    lines = enumerate(content.removeprefix(BOM).split(b"\n"), start=1)
    return [Row(_object(line, f"{path}:{number}"), f"{path}:", number) for number, line in lines if line.strip()]


def _object(line: bytes, location: str) -> dict[str, Any]:
    try:
        row = parse(line)
    except InputError as error:
        raise InputError(f"{location}: not a JSON object: {error}") from error
    if not isinstance(row, dict):
        raise InputError(f"{location}: not a JSON object: {short_repr(row)}")
    return row


def _json(path: Path) -> Rows:
    try:
        rows = parse(path.read_bytes().removeprefix(BOM))
    except InputError as error:
        raise InputError(f"{path}: not a JSON list of objects: {error}") from error
    if not isinstance(rows, list):
        raise InputError(f"{path}: not a JSON list of objects: {short_repr(rows)}")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise InputError(f"{path}: row {number} is not a JSON object: {short_repr(row)}")
    return with_locations(rows, path)


def read_tsv(path: Path) -> Rows:
    """The rows of a tab-separated file. Cells that contain tabs or line breaks are quoted.

    Raises:
        InputError: not such a file, or a row with more or fewer cells than the header.
    """
    return _csv(path, "\t")


def _csv(path: Path, delimiter: str = ",") -> Rows:
    rows: list[dict[str, Any]] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True, delimiter=delimiter)
            header = reader.fieldnames or ()
            if len(set(header)) < len(header):
                raise InputError(f"{path}: a column occurs twice in the header: {short_repr(list(header))}")
            for row in reader:
                if None in row or None in row.values():  # more or fewer cells than the header
                    raise InputError(f"{path}:{reader.line_num}: expected {len(header)} columns, as in the header")
                rows.append(row)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV file in UTF-8: {error}") from error
    return with_locations(rows, path)


def _parquet(path: Path) -> Rows:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            rows = file.read().to_pylist()
    # ValueError for text that is not UTF-8, and for dates that Python does not support.
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise InputError(f"{path}: not a Parquet file: {one_line(error)}") from error
    return with_locations(rows, path)
