"""Command lines, which tyro reads. A mistake is one line; tyro would draw a box."""

import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from io import StringIO
from typing import Any

import tyro

from jaxprefix.errors import InputError

MISTAKE = 2  # tyro's exit code
NO_TYPE = r"^Error parsing (\S+): no type matching (?:\{None\}\|)?(\S+) could be instantiated from \[(.*?)\]\..*"
CLEARER = (  # what tyro writes, and what is said instead
    (NO_TYPE, r"\1 is \3; expected \2"),
    (r"^Error parsing (config|settings)[\w.]*: ", ""),
    (r"^Missing from (.*): (\S+).*", r"\1 needs \2"),
)


def read_arguments(command: Any, prog: str, arguments: Sequence[str] | None = None, **settings: Any) -> Any:
    """What `tyro.cli(command, ...)` makes of the arguments (None: those of this process).

    InputError, in one line, if they do not fit. --help is printed as tyro does, and ends the process.
    """
    arguments = sys.argv[1:] if arguments is None else arguments

    def read() -> Any:
        return tyro.cli(command, args=arguments, prog=prog, **settings)

    try:
        with redirect_stderr(StringIO()):
            return read()
    except SystemExit as ended:
        if ended.code != MISTAKE:
            raise
    raise InputError(f"{_message(_box(read))}; {prog} --help lists the options")


def _box(read: Callable[[], Any]) -> str:
    """What tyro writes about a mistake, in lines that are not broken."""
    columns, said = os.environ.get("COLUMNS"), StringIO()
    os.environ["COLUMNS"] = "10000"
    try:
        with redirect_stderr(said):
            read()
    except SystemExit:
        pass
    finally:
        del os.environ["COLUMNS"]
        os.environ |= {"COLUMNS": columns} if columns is not None else {}
    return said.getvalue()


def _message(box: str) -> str:
    """The first part of tyro's box, without its frame, and the options that are like the given one."""
    parts: list[list[str]] = [[]]
    for line in box.splitlines():
        text = line.strip(" │")
        if text.startswith("─"):
            parts.append([])
        elif text and text[0] not in "╭╰":
            parts[-1].append(text)
    message = " ".join(parts[0])
    for pattern, text in CLEARER:
        message = re.sub(pattern, text, message)
    like = [
        line.split()[0]
        for title, *lines in filter(None, parts[1:])
        for line in lines
        if title.startswith("Perhaps") and line.startswith("--")
    ]
    return message.rstrip(".") + (f"; perhaps {' or '.join(like)}" if like else "")
