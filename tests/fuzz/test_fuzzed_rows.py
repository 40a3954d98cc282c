"""Files of rows with any content, up to the task that is made of them."""

import io
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import small
from mutation import changes, content, document, harmed, text, written
from strict import fuzz, returns_or_says_why

from jaxprefix.tasks.user_rows import own_rows_task

pytestmark = pytest.mark.usefixtures("little_memory")

ROWS = [row | {"id": str(number), "choices": list(small.COLOURS)} for number, row in enumerate(small.rows(3))]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
CELLS = ('\ufeffprompt,response,language\r\n"What is it?",red,en\r\n"a ""b"",\nc",blue,de\r\n' * 2).encode()


def parquet(compression: str) -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS * 5), file, compression=compression)
    return file.getvalue()


def lines(rows: list[dict]) -> bytes:
    """The rows, one per line; a document that is no longer a list is a single line."""
    return b"\n".join(text(row) for row in rows) if isinstance(rows, list) else text(rows)


def jsonl(recipe: bytes) -> bytes:
    found = changes(recipe)
    return content(LINES, found) if recipe[-1] % 2 else lines(document(ROWS, found))


KINDS = {
    "jsonl": jsonl,
    "json": written(ROWS),
    "csv": harmed(CELLS),
    "parquet": harmed(parquet("none"), parquet("snappy")),
}


@pytest.mark.parametrize("ending", KINDS)
def test_rows(ending: str, place: Path):
    path = place / f"rows.{ending}"

    def holds(found: bytes) -> bool:
        path.write_bytes(found)
        return returns_or_says_why(lambda: _examples(path), path)

    fuzz(KINDS[ending], holds)


def _examples(path: Path) -> None:
    task = own_rows_task(path)
    for language in task.languages:
        for row in task.load(language, "file", None):
            json.dumps(task.example(row, language).id).encode()
