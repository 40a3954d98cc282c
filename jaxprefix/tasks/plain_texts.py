"""A file of plain texts: rows {"text"}, optionally with "language" and "id"."""

from collections import Counter
from pathlib import Path

from jaxprefix.io.rows import Row, read_rows
from jaxprefix.tasks.columns import filled_text_of, text_of


def read_texts(path: Path) -> list[Row]:
    """The rows {"id", "language", "text"} of a file. InputError, with file and row, for a wrong row.

    The default language is English. Without ids the n-th text of each language has the id n, counted from 1.
    """
    counts: Counter[str] = Counter()
    rows = []
    for row in read_rows(path):
        language = text_of(row, "language") if row.get("language") not in (None, "") else "en"
        counts[language] += 1
        columns = {"language": language, "text": filled_text_of(row, "text")}
        columns["id"] = str(row.get("id", counts[language]))
        rows.append(Row(columns, row.source, row.number))
    return rows
