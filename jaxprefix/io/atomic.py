"""Files and directories that are written whole or not at all, and locks on directories."""

import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from jaxprefix.distributed import processes
from jaxprefix.errors import InputError

UNFINISHED = ".new"  # ends the name of a file that is being written
LOCK = ".jaxprefix-lock"  # begins the name of a lock file


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
    """InputError if something is there already, or nothing can be written."""
    check_writable(directory)
    if entries(directory):
        raise InputError(f"{directory} holds files already; give a new directory")


def check_writable(directory: Path) -> None:
    """InputError if nothing can be written to a directory, there already or still to be made."""
    place = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    where = f"{place}" if place == directory else f"{directory}: {place}"
    if not place.is_dir():
        raise InputError(f"{where} is a file; give a new directory")
    if not os.access(place, os.W_OK):
        raise InputError(f"{where} may not be written to; give another directory")


def check_new_file(path: Path) -> None:
    """InputError if something is there already, or nothing can be written."""
    if path.exists():
        raise InputError(f"{path} is there already; give a new file")
    check_writable(path.parent)


class RunLocked(InputError):
    """Another process holds the lock."""


@contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Makes the directory; an InputError if another process that asked so still runs."""
    check_writable(directory)
    with lock(directory / LOCK, f"another process writes to {directory}; wait for its end, or give --output"):
        yield


@contextmanager
def lock(path: Path, refusal: str) -> Iterator[None]:
    """Holds a lock file and removes it at the end; raises Busy with these words where another process holds it.

    Makes its directory. The operating system ends the lock with its process: a file that a killed process left does not
    matter. On a file system that has no locks it says so in a line and holds none.
    """
    lock = FileLock(path, timeout=0, mode=0o666, fallback_to_soft=False)  # whoever shares the directory can lock it
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except (Timeout, FileNotFoundError, FileExistsError):  # the latter two where its last holder removes the directory
        raise RunLocked(refusal) from None
    except OSError as error:  # some file systems of clusters have none
        print(f"{path.parent} cannot be locked ({error.strerror}): see that no other command writes", file=sys.stderr)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()  # while it is held: it is nobody else's
        lock.release()


def entries(directory: Path) -> set[str]:
    """The names in a directory, without lock files; none where there is no directory."""
    names = {path.name for path in directory.iterdir()} if directory.is_dir() else set()
    return {name for name in names if not name.startswith(LOCK)}


@contextmanager
def disk_errors(directory: Path) -> Iterator[None]:
    """A disk that is full or gone while a run's files are written, as an InputError."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{directory} cannot be written to ({error.strerror or error}); what was saved before is kept: make room "
            "there, and the same command goes on"
        ) from error


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all, also where the machine stops; makes its directory.

    Of several processes the first one does it. Where it cannot be written nothing of it is left.
    """
    if not processes.is_main_process():
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
