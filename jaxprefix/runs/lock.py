"""The run directory and its lock, which one training command at a time can hold."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

from jaxprefix.io.atomic import LOCK, RunLocked, check_writable, lock
from jaxprefix.runs import directory as directories
from jaxprefix.runs.config import RunConfig


@contextmanager
def run_lock(output: Path | None, config: RunConfig, name: str, base: str) -> Iterator[Path]:
    """The run directory, locked against other training commands. It is created if needed (see `open_directory`).

    Without `output` it is runs/<name>-<n>: the first that has the same run, unfinished and unlocked, or else the next
    free number. Others may read the directory. Created directories that stay empty are removed at the end.

    Raises InputError if `output` has another run, or another command trains in it.
    """
    if output is not None:
        directories.open_directory(output, config, base)
        created = [path for path in (output, *output.parents) if not path.exists()]
        with _locked(output, created):
            directories.open_directory(output, config, base)  # another command may just have started a run
            yield output
        return
    for number in count(1):
        directory = Path("runs") / f"{name}-{number}"
        with ExitStack() as stack:
            if not directories.can_resume(directory, config, base):
                continue
            try:
                # If two commands find the same number, one creates the directory and the other may get the lock.
                stack.enter_context(_locked(directory, [directory, directory.parent]))
            except RunLocked:
                continue
            if directories.can_resume(directory, config, base):
                yield directory
                return


@contextmanager
def _locked(directory: Path, created: Sequence[Path]) -> Iterator[None]:
    """The lock of training on the run directory. Evaluation has a lock of its own and can run at the same time."""
    check_writable(directory)
    directories.check_path(directory)
    refusal = f"another command trains in {directory}; wait until it ends, or choose a new --output"
    try:
        with lock(directory / f"{LOCK}-training", refusal):
            try:
                yield
            finally:
                _remove_empty(
                    [directory / directories.FOLDER]
                )  # before the lock is released: no other command uses it yet
    finally:
        _remove_empty(created)


def _remove_empty(paths: Sequence[Path]) -> None:
    for path in paths:
        try:
            path.rmdir()
        except OSError:  # not empty
            return
