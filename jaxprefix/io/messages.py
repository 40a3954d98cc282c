"""What a message may quote of what others wrote: one line, printable, and short, whatever it is."""

import reprlib

LONGEST = 200  # characters of one quotation


class _Short(reprlib.Repr):
    """`repr` that goes a few levels deep and shows a few members of each."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxdict = 12  # a method's settings
        self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = 6
        self.maxstring = self.maxother = 60


def short_repr(value: object) -> str:
    """A value of whatever kind, as Python writes it."""
    return truncate(" ".join(_SHORT.repr(value).split()))


def truncate(text: str, longest: int = LONGEST) -> str:
    """A text without quotes around it, such as a tensor's name; what a terminal would obey is escaped."""
    text = "".join(each if each.isprintable() else repr(each)[1:-1] for each in text[: longest + 1])
    return text if len(text) <= longest else text[: longest - 3] + "..."


def one_line(error: BaseException) -> str:
    """What an exception says, or its name where it says nothing."""
    return truncate(next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__))


_SHORT = _Short()
