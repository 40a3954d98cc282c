"""Output on the terminal: progress, and one line for an error of the user."""

import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from html import escape
from types import TracebackType

from jaxlib import utils  # type: ignore[attr-defined]
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from jaxprefix.distributed import processes
from jaxprefix.errors import InputError

MINUTE = 60.0  # seconds between lines of progress without a terminal
SECOND = 1.0  # between updates of progress in a notebook
JAX_LEVEL = "1"  # of TF_CPP_MIN_LOG_LEVEL: the value that JAX sets by default
FATAL = 3  # a level of Abseil's log


class Stopped(Exception):
    """A signal has stopped the run; the message is one line."""

    def __init__(self, line: str, number: int) -> None:
        super().__init__(line)
        self.code = 128 + number  # the convention of shells


def run(main: Callable[[], None]) -> None:
    """Runs a command. An InputError becomes one line on stderr and exit code 2; a bug keeps its traceback.

    It ends quietly if the reader of its output has gone, as in `--help | head`. Where stdout cannot encode a
    character, its escape is printed.
    """
    _quiet_libraries()
    _escape_unencodable()
    try:
        try:
            main()
        finally:
            sys.stdout.flush()  # here, and not when the interpreter ends, where an error could not be caught
    except BrokenPipeError:
        _drop_output()
        sys.exit(128 + signal.SIGPIPE)
    except InputError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(stopped.code)
    except KeyboardInterrupt:
        print("stopped; what was saved is kept: run the same command to resume", file=sys.stderr)
        sys.exit(130)


def _escape_unencodable() -> None:
    """Makes stdout like stderr: in ASCII or latin-1, "ह" is printed as \\u0939 instead of raising an error."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """Sends what is still buffered for stdout nowhere, so that the interpreter does not fail to write it."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def note(line: str) -> None:
    """Prints a line about the user's files on stderr, which leaves answers on stdout alone."""
    if processes.is_main_process():
        print(f"note: {line}", file=sys.stderr)


def _quiet_libraries() -> None:
    """Hides the messages of libraries about errors that they also raise, until the process ends.

    The log of XLA is hidden unless TF_CPP_MIN_LOG_LEVEL is set; this loses only a banner about programs that need more
    than two minutes to compile. The threads of Orbax print tracebacks.
    """
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", JAX_LEVEL) == JAX_LEVEL:
        utils.absl_set_min_log_level(FATAL)
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_not_from_orbax)  # adding it again has no effect
    if not isinstance(sys.excepthook, _Hook):
        sys.excepthook = _Hook(sys.excepthook)


def _not_from_orbax(record: logging.LogRecord) -> bool:
    # asyncio logs the file of a task whose exception was never retrieved.
    return not (record.exc_info and "orbax" in record.pathname + record.getMessage())


class _Hook:
    """A sys.excepthook that hides the RuntimeError of Orbax's second failed write: the first closed the event loop."""

    def __init__(self, hook: Callable[..., object]) -> None:
        self.hook = hook

    def __call__(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not (kind is RuntimeError and str(error) == "Event loop is closed"):
            self.hook(kind, error, trace)


@contextmanager
def progress(quiet: bool) -> Iterator[Progress]:
    """A progress bar with rate and time left. Of several processes, only the main one shows it.

    A notebook has it in the output of the cell. Elsewhere without a terminal, it is one line per minute on stderr.
    """
    quiet = quiet or not processes.is_main_process()
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    columns = (*columns, TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as bar:
        if quiet or console.is_terminal:
            yield bar
            return
        show = _output_of_cell() if console.is_jupyter else _print
        done, seconds = threading.Event(), SECOND if console.is_jupyter else MINUTE
        # In a thread, because compilation may block the main thread for long.
        reporter = threading.Thread(target=_repeat, args=(lambda: show(bar.tasks), seconds, done), daemon=True)
        reporter.start()
        try:
            yield bar
        finally:
            done.set()
            reporter.join()
            if console.is_jupyter:  # the output remains, so it has the end
                show(bar.tasks)


def _repeat(call: Callable[[], None], seconds: float, done: threading.Event) -> None:
    while not done.wait(seconds):
        call()


def _print(tasks: Sequence[Task]) -> None:
    for task in tasks:
        print(_line(task), file=sys.stderr, flush=True)


def _output_of_cell() -> Callable[[Sequence[Task]], None]:
    """Adds an output to the running cell of a notebook, and returns a function that shows tasks there."""
    from IPython.display import display  # type: ignore[import-not-found]

    output = display({"text/plain": ""}, raw=True, display_id=True)
    assert output, "a display with an id has a handle"

    def show(tasks: Sequence[Task]) -> None:
        bars = (
            f'<progress value="{task.completed}" max="{task.total}"></progress> ' if task.total else ""
            for task in tasks
        )
        lines = list(map(_line, tasks))
        html = "<br>".join(f"{bar}{escape(line)}" for bar, line in zip(bars, lines, strict=True))
        output.update({"text/plain": "\n".join(lines), "text/html": html}, raw=True)

    return show


def _line(task: Task) -> str:
    """Such as "training 50 of 200, loss 0.5, 0:00:10 so far, 0:00:30 left"."""
    steps = f" {task.completed:g} of {task.total:g}" if task.total else ""
    left = f", {timedelta(seconds=int(task.time_remaining))} left" if task.time_remaining else ""
    rate = f", {task.fields['rate']}" if task.fields["rate"] else ""
    return f"{task.description}{steps}{rate}, {timedelta(seconds=int(task.elapsed or 0))} so far{left}"
