"""What the person at the terminal sees: progress, and one line for a mistake of theirs."""

import dis
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

PACKAGE = Path(__file__).parent


class Stopped(Exception):
    """The end of a run that a signal asked for, in a line."""

    def __init__(self, line: str, asked: int) -> None:
        super().__init__(line)
        self.code = 128 + asked  # as shells say it


def run(main: Callable[[], None]) -> None:
    """Runs a command: a ValueError that this package raised is the user's to mend, one line on stderr and exit code 2.

    A ValueError that anything else raised (a library, `int("x")`) is a defect of ours and keeps its traceback.
    """
    try:
        main()
    except ValueError as error:
        if not _raised_here(error):
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(stopped.code)
    except KeyboardInterrupt:
        print("stopped; what was saved is kept, and the same command goes on from there", file=sys.stderr)
        sys.exit(130)


def _raised_here(error: ValueError) -> bool:
    """Whether a `raise` of this package raised it; told by the bytecode, because sources may be absent or edited."""
    place = error.__traceback__
    while place and place.tb_next:
        place = place.tb_next
    assert place, "an error that was caught has a traceback"
    code = place.tb_frame.f_code
    return PACKAGE in Path(code.co_filename).parents and code.co_code[place.tb_lasti] == dis.opmap["RAISE_VARARGS"]


def progress(quiet: bool) -> Progress:
    """A bar with rate and time left; nothing at all where it is unwanted or no terminal is there to draw on."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    return Progress(
        *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, disable=quiet or not console.is_terminal
    )
