"""Quotations for messages: any value or text as one short, printable line."""

import reprlib
import shlex
from collections.abc import Iterable
from difflib import get_close_matches

LONGEST = 200  # characters of one quotation


class _Short(reprlib.Repr):
    """`repr` with few levels, and few members per level."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxdict = 12  # enough for the settings of a method
        self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = 6
        self.maxstring = self.maxother = 60


def short_repr(value: object) -> str:
    """The `repr` of any value, shortened."""
    return truncate(" ".join(_SHORT.repr(value).split()))


def truncate(text: str, longest: int = LONGEST) -> str:
    """A text without quotes, such as the name of a tensor. Control characters are escaped."""
    text = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text[: longest + 1])
    return text if len(text) <= longest else text[: longest - 3] + "..."


def similar(name: str, known: Iterable[str]) -> str:
    """A question for the end of a message, such as "; did you mean lora?", if a known name is like this one."""
    near = get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def shell(path: object) -> str:
    """A path as one argument of a shell command: quoted if needed, and not to be taken for a flag."""
    text = str(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def one_line(error: BaseException) -> str:
    """The first line of an exception's message, or its name if it has none."""
    return truncate(next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__))


_SHORT = _Short()
