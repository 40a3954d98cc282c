"""Markdown that GitHub shows as it is meant: tables, and text in which nothing is markup."""

import re
from collections.abc import Collection, Iterable, Sequence


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[object]],
    closing: Iterable[Sequence[object]] = (),
    words: Collection[int] = (0,),
) -> str:
    """A table with plain rows and then bold ones.

    Args:
        words: the columns that are aligned to the left; the others hold figures and are aligned to the right.
    """
    rules = ["---" if column in words else "---:" for column in range(len(header))]
    lines = [list(map(escape, header)), rules, *(list(map(escape, row)) for row in rows)]
    lines += [[f"**{escape(cell)}**" if cell else "" for cell in row] for row in closing]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def escape(value: object) -> str:
    """The value's text on one line, without markup; an underscore inside a word needs no escape."""
    text = re.sub(r"([\\`*\[\]<>|~&$])", r"\\\1", " ".join(str(value).split()))
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)
