"""Markdown for GitHub: tables, and escaped text."""

import re
from collections.abc import Collection, Iterable, Sequence


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[object]],
    closing: Iterable[Sequence[object]] = (),
    words: Collection[int] = (0,),
) -> str:
    """A table with plain rows, followed by bold rows.

    Args:
        words: the columns that are left-aligned; the others have figures and are right-aligned.
    """
    rules = ["---" if column in words else "---:" for column in range(len(header))]
    lines = [list(map(escape, header)), rules, *(list(map(escape, row)) for row in rows)]
    lines += [[f"**{escape(cell)}**" if cell else "" for cell in row] for row in closing]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def escape(value: object) -> str:
    """The text of a value on one line, with markup escaped. An underscore inside a word needs no escape."""
    text = re.sub(r"([\\`*\[\]<>|~&$])", r"\\\1", " ".join(str(value).split()))
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)
