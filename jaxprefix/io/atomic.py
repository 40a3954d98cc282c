"""Atomic writes of files and directories, and locks on directories."""

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

UNFINISHED = ".new"  # suffix of a file that is being written
LOCK = ".jaxprefix-lock"  # prefix of a lock file


@contextmanager
def new_directory(directory: Path) -> Iterator[Path]:
    """A temporary directory that is renamed to `directory` at the end, unless there was an error."""
    check_new(directory)
    directory = directory.absolute()
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = directory.parent / f".{directory.name}.{secrets.token_hex(4)}"
    temporary.mkdir()
    try:
        yield temporary
        for path in temporary.iterdir():
            if path.is_file():
                path.chmod(0o644)  # the safetensors library makes files that only their owner can read
        os.rename(temporary, directory)
    except BaseException:
        shutil.rmtree(temporary)
        raise


def check_new(directory: Path) -> None:
    """InputError if the directory has files or cannot be written to."""
    check_writable(directory)
    if entries(directory):
        raise InputError(f"{directory} already has files; give a new directory")


def check_writable(directory: Path) -> None:
    """InputError if a directory, which need not exist yet, cannot be written to."""
    nearest = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    location = f"{nearest}" if nearest == directory else f"{directory}: {nearest}"
    if not nearest.is_dir():
        raise InputError(f"{location} is a file; give a new directory")
    if not os.access(nearest, os.W_OK):
        raise InputError(f"{location} is not writable; give another directory")


def check_new_file(path: Path) -> None:
    """InputError if the file exists or cannot be written."""
    if path.exists():
        raise InputError(f"{path} already exists; give a new file")
    check_writable(path.parent)


class RunLocked(InputError):
    """Another process holds the lock."""


@contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Makes the directory and locks it. RunLocked if another process has the lock."""
    check_writable(directory)
    with lock(directory / LOCK, f"another process writes to {directory}; wait for it to end, or give another --output"):
        yield


@contextmanager
def lock(path: Path, message: str) -> Iterator[None]:
    """Holds a lock file, and removes it at the end. RunLocked, with this message, if another process holds it.

    The directory is made. The operating system releases the lock of a process that ends, so the file of a killed
    process does not block. On a file system without locks, a warning is printed and nothing is locked.
    """
    lock = FileLock(path, timeout=0, mode=0o666, fallback_to_soft=False)  # others who share the directory can lock it
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except (Timeout, FileNotFoundError, FileExistsError):  # the latter two if the last holder removes the directory
        raise RunLocked(message) from None
    except OSError as error:  # some cluster file systems have no locks
        print(
            f"{path.parent} could not be locked ({error.strerror}); make sure that no other command writes to it",
            file=sys.stderr,
        )
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()  # before the release, after which it may be another process's
        lock.release()


def entries(directory: Path) -> set[str]:
    """The names in a directory, without lock files; empty if there is no directory."""
    names = {path.name for path in directory.iterdir()} if directory.is_dir() else set()
    return {name for name in names if not name.startswith(LOCK)}


@contextmanager
def disk_errors(directory: Path) -> Iterator[None]:
    """Makes an InputError of an OSError while the files of a run are written, such as a full disk."""
    try:
        yield
    except BrokenPipeError:  # of stdout
        raise
    except OSError as error:
        raise InputError(
            f"{directory} could not be written to ({error.strerror or error}); what was saved before is kept: "
            "make room, and run the same command to resume"
        ) from error


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file completely or not at all, even if the machine stops. Makes its directory.

    Of several processes, only the main one writes. After an OSError nothing is left of the file.
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
