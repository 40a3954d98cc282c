"""Reads files of rows. Every row has its location, for error messages."""

import csv
import gzip
import io
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxprefix.errors import InputError
from jaxprefix.io.messages import one_line, short_repr
from jaxprefix.io.strict_json import parse

BOM = b"\xef\xbb\xbf"  # the byte order mark that some programs write
ENDINGS = ("jsonl", "json", "parquet", "csv", "tsv")
PACKED = ".gz"


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


def split_name(path: Path) -> tuple[str, str]:
    """ "mine.jsonl.gz" -> ("mine", "jsonl"), and ("mine.txt", "") for a file that does not hold rows."""
    stem, _, ending = path.name.removesuffix(PACKED).rpartition(".")
    return (stem, ending.lower()) if stem and ending.lower() in ENDINGS else (path.name, "")


def read_rows(path: Path) -> Rows:
    """The rows of a .jsonl, .json (a list of objects, or lines as in .jsonl), .parquet, .csv or .tsv file.

    .csv and .tsv have a header; cells with separators or line breaks are quoted. Files may have a BOM, and may be
    packed with gzip (.jsonl.gz).

    Raises:
        InputError: no such file, an unknown extension, no rows, or a malformed row. The message names file and line or
        row.
    """
    readers: dict[str, Callable[[bytes, Path], Rows]] = {
        "jsonl": parse_lines,
        "json": _json,
        "parquet": _parquet,
        "csv": _csv,
        "tsv": _tsv,
    }
    _, ending = split_name(path)
    if not ending:
        known = f"{', '.join(f'.{ending}' for ending in ENDINGS[:-1])} or .{ENDINGS[-1]}"
        raise InputError(f"{path}: expected rows in a {known} file, or one with {PACKED}, not {path.suffix or path}")
    if not path.is_file():
        raise InputError(f"no such file: {path}")
    rows = readers[ending](_content(path), path)
    if not rows:
        raise InputError(f"{path} has no rows")
    return rows


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:  # no permission, or a failing disk
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    if path.suffix != PACKED:
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, zlib.error, OSError) as error:
        raise InputError(f"{path}: not a gzip file: {one_line(error)}") from None


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


def _json(content: bytes, path: Path) -> Rows:
    content = content.removeprefix(BOM)
    try:
        rows = parse(content)
    except InputError as error:
        if b"\n{" in content and content.lstrip().startswith(b"{"):  # several objects
            return parse_lines(content, path)
        raise InputError(f"{path}: not a JSON list of objects: {error}") from error
    if not isinstance(rows, list):
        raise InputError(f"{path}: not a JSON list of objects: {short_repr(rows)}")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise InputError(f"{path}: row {number} is not a JSON object: {short_repr(row)}")
    return with_locations(rows, path)


def _tsv(content: bytes, path: Path) -> Rows:
    return _csv(content, path, "\t")


@contextmanager
def _long_cells(size: int) -> Iterator[None]:
    """Lets cells have `size` characters meanwhile. The limit of the csv module, 131,072, is shared by the process."""
    before = csv.field_size_limit(min(max(size, csv.field_size_limit()), 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _csv(content: bytes, path: Path, delimiter: str = ",") -> Rows:
    rows: list[dict[str, Any]] = []
    try:
        with io.TextIOWrapper(io.BytesIO(content), "utf-8-sig", newline="") as file, _long_cells(len(content)):
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


def _parquet(content: bytes, path: Path) -> Rows:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(pyarrow.BufferReader(content)) as file:
            rows = file.read().to_pylist()
    # ValueError for text that is not UTF-8, and for dates that Python does not support.
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise InputError(f"{path}: not a Parquet file: {one_line(error)}") from error
    return with_locations(rows, path)
