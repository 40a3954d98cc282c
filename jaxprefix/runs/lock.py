"""A run directory and the right to write to it, which one training command at a time has."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

from jaxprefix.io.atomic import LOCK, RunLocked, check_writable, lock
from jaxprefix.runs import directory as directories
from jaxprefix.runs.config import RunConfig


@contextmanager
def run_lock(output: Path | None, config: RunConfig, name: str, base: str) -> Iterator[Path]:
    """The run directory, found or made as `open_directory` says; until the end, other training commands are refused it.

    Without `output` it is runs/<name>-<n>: the first that holds this very run unfinished and is in nobody's hands, else
    the next number. Reading is allowed to all. What was made for it and stays empty is removed at the end.

    Raises InputError where `output` is another run's, or another command trains in it.
    """
    if output is not None:
        directories.open_directory(output, config, base)
        made = [path for path in (output, *output.parents) if not path.exists()]
        with _held(output, made):
            directories.open_directory(output, config, base)  # another command may have begun a run there just now
            yield output
        return
    for number in count(1):
        directory = Path("runs") / f"{name}-{number}"
        with ExitStack() as hold:
            if not directories.can_resume(directory, config, base):
                continue
            try:
                # Whoever made it: of two commands that find the same number one makes it, the other may get it.
                hold.enter_context(_held(directory, [directory, directory.parent]))
            except RunLocked:
                continue
            if directories.can_resume(directory, config, base):
                yield directory
                return


@contextmanager
def _held(directory: Path, made: Sequence[Path]) -> Iterator[None]:
    """Training's own lock on the run directory: evaluation has another, and may go on meanwhile."""
    check_writable(directory)
    refusal = f"another command trains in {directory}; wait for its end, or choose a new --output"
    try:
        with lock(directory / f"{LOCK}-training", refusal):
            try:
                yield
            finally:
                _remove_empty([directory / directories.FOLDER])  # while it is still held: nobody else counts on it
    finally:
        _remove_empty(made)


def _remove_empty(paths: Sequence[Path]) -> None:
    for path in paths:
        try:
            path.rmdir()
        except OSError:  # something is in it
            return
