"""What the person at the terminal sees: progress, and one line for a mistake of theirs."""

import dis
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

PACKAGE = Path(__file__).parents[1]
MINUTE = 60.0  # seconds between lines of progress where there is no terminal


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


@contextmanager
def progress(quiet: bool) -> Iterator[Progress]:
    """A bar with rate and time left; where there is no terminal to draw it on, a line a minute on stderr."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    columns = (*columns, TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as bar:
        if quiet or console.is_terminal:
            yield bar
            return
        done = threading.Event()
        reporter = threading.Thread(target=_report, args=(bar, done), daemon=True)
        reporter.start()
        try:
            yield bar
        finally:
            done.set()
            reporter.join()


def _report(bar: Progress, done: threading.Event) -> None:
    """Prints a line a task every MINUTE; a thread, because a compiler may keep the main one for long."""
    while not done.wait(MINUTE):
        for task in bar.tasks:
            steps = f" {task.completed:g} of {task.total:g}" if task.total else ""
            left = f", {timedelta(seconds=int(task.time_remaining))} left" if task.time_remaining else ""
            elapsed = timedelta(seconds=int(task.elapsed or 0))
            rate = f", {task.fields['rate']}" if task.fields["rate"] else ""
            print(f"{task.description}{steps}{rate}, {elapsed} so far{left}", file=sys.stderr, flush=True)
