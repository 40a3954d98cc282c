"""What the person at the terminal sees: progress, and one line for a mistake of theirs."""

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType

from jaxlib import utils  # type: ignore[attr-defined]
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from jaxprefix.errors import InputError

MINUTE = 60.0  # seconds between lines of progress where there is no terminal
JAX_LEVEL = "1"  # of TF_CPP_MIN_LOG_LEVEL: what JAX sets where the user has set nothing
FATAL = 3  # the level of Abseil's log


class Stopped(Exception):
    """The end of a run that a signal asked for, in a line."""

    def __init__(self, line: str, asked: int) -> None:
        super().__init__(line)
        self.code = 128 + asked  # as shells say it


def run(main: Callable[[], None]) -> None:
    """Runs a command. An InputError becomes one line on stderr and exit code 2; a bug keeps its traceback."""
    _quiet_libraries()
    try:
        main()
    except InputError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(stopped.code)
    except KeyboardInterrupt:
        print("stopped; what was saved is kept, and the same command goes on from there", file=sys.stderr)
        sys.exit(130)


def _quiet_libraries() -> None:
    """Hides what libraries print of errors that they also raise, until the process ends.

    XLA's log is hidden unless TF_CPP_MIN_LOG_LEVEL asks for it; all that is lost is a banner about a program that takes
    two minutes to compile. Orbax's threads print tracebacks.
    """
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", JAX_LEVEL) == JAX_LEVEL:
        utils.absl_set_min_log_level(FATAL)
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_not_of_orbax)  # a filter that is there already is not added again
    if not isinstance(sys.excepthook, _Hook):
        sys.excepthook = _Hook(sys.excepthook)


def _not_of_orbax(record: logging.LogRecord) -> bool:
    # asyncio names the task whose exception nobody asked for, with its file.
    return not (record.exc_info and "orbax" in record.pathname + record.getMessage())


class _Hook:
    """sys.excepthook without what the second of two failing writes says when the first has ended Orbax's event loop."""

    def __init__(self, before: Callable[..., object]) -> None:
        self.before = before

    def __call__(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not (kind is RuntimeError and str(error) == "Event loop is closed"):
            self.before(kind, error, trace)


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
