"""Files and directories that are written whole or not at all, and locks on directories."""

import fcntl
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jaxprefix.distributed import processes
from jaxprefix.errors import InputError

UNFINISHED = ".new"  # ends the name of a file that is being written


@contextmanager
def new_directory(directory: Path) -> Iterator[Path]:
    """A place to write files that become `directory` all at once, and only if nothing goes wrong."""
    check_new(directory)
    directory = directory.absolute()
    directory.parent.mkdir(parents=True, exist_ok=True)
    place = directory.parent / f".{directory.name}.{secrets.token_hex(4)}"
    place.mkdir()
    try:
        yield place
        for path in place.iterdir():
            if path.is_file():
                path.chmod(0o644)  # the safetensors library's own are for their owner alone
        os.rename(place, directory)
    except BaseException:
        shutil.rmtree(place)
        raise


def check_new(directory: Path) -> None:
    """InputError where something is there already, or nothing can be written."""
    check_writable(directory)
    if directory.exists() and any(directory.iterdir()):
        raise InputError(f"{directory} holds files already; give a new directory")


def check_writable(directory: Path) -> None:
    """InputError where nothing can be written to a directory, there already or still to be made."""
    place = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    where = f"{place}" if place == directory else f"{directory}: {place}"
    if not place.is_dir():
        raise InputError(f"{where} is a file; give a new directory")
    if not os.access(place, os.W_OK):
        raise InputError(f"{where} may not be written to; give another directory")


def check_new_file(path: Path) -> None:
    """InputError where something is there already, or nothing can be written."""
    if path.exists():
        raise InputError(f"{path} is there already; give a new file")
    check_writable(path.parent)


class Busy(InputError):
    """Another process holds the lock."""


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Makes the directory; a InputError where another process that asked so still runs."""
    check_writable(directory)
    with locked(directory, f"another process writes to {directory}; wait for its end, or give --output"):
        yield


@contextmanager
def locked(directory: Path, refusal: str) -> Iterator[None]:
    """Makes the directory and holds its lock; raises Busy with these words where another process has it.

    The lock is the operating system's on the directory itself: it leaves no file, and ends with its process. On a file
    system that has no locks it says so in a line and goes on.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        handle = os.open(directory, os.O_RDONLY)
    except FileNotFoundError:  # who had it has just removed it
        raise Busy(refusal) from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(refusal) from None
        except OSError as error:  # some file systems of clusters have none
            print(f"{directory} cannot be locked ({error.strerror}): see that no other command writes", file=sys.stderr)
        # Who had it may have removed it before it was locked here: the lock would be on nothing.
        if not directory.is_dir() or not os.path.samestat(os.fstat(handle), directory.stat()):
            raise Busy(refusal)
        yield
    finally:
        os.close(handle)


@contextmanager
def writing(directory: Path) -> Iterator[None]:
    """A disk that is full or gone while a run's files are written, as a InputError."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{directory} cannot be written to ({error.strerror or error}); what was saved before is kept: make room "
            "there, and the same command goes on"
        ) from error


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all, also where the machine stops; makes its directory.

    Of several processes the first one does it. Where it cannot be written nothing of it is left.
    """
    if not processes.first():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}{UNFINISHED}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
