"""The run directory: found or made, never written over; run.json in it says what the run is."""

import fcntl
import json
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxprefix import hosts
from jaxprefix.jsonfile import read_object
from jaxprefix.run import RunConfig
from jaxprefix.typed import is_of, words
from jaxprefix.wording import shown

RUN_FILE = "run.json"
PLAN_FILE = "plan.json"  # of a dry run
FOLDER = "checkpoints"  # of the run directory, where Orbax saves
UNFINISHED = ".new"  # ends the name of a file that is being written
# What training writes there, and all that is relied on. Nothing is learnt from "rows" that are null, as of `none`.
DESCRIBED: dict[str, Any] = {
    "config": dict,
    "base": str,
    "source": str,
    "rows": str | None,
    "finished": bool,
    "steps": int,
    "versions": dict | None,
}
LATER = ("versions",)  # may be absent
# A run may go on with these changed; anything else would make it another run.
MAY_DIFFER = ("steps", "epochs", "mesh", "platform", "data", "keep", "on_nan")


def read_run(directory: Path) -> dict[str, Any]:
    """The object in DIRECTORY/run.json; ValueError where training cannot have written it."""
    path = directory / RUN_FILE if directory.is_dir() else directory
    place = path.parent if path.name == RUN_FILE else path
    if not path.is_file():
        raise ValueError(
            f"{place} is not a run: it has no readable {RUN_FILE}; give the directory that training printed"
        )
    try:
        values = read_object(path)
    except ValueError as error:
        raise ValueError(f"{error}; restore it, or train anew elsewhere") from None
    for name, kind in DESCRIBED.items():
        if (name not in values and name not in LATER) or not is_of(kind, values.get(name)):
            given = shown(values[name]) if name in values else "missing"
            raise ValueError(f"{path} is not a run's description: its {name} is {given}; expected {words(kind)}")
    try:
        RunConfig.from_json(values["config"])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return values


def run_directories(text: str) -> list[Path]:
    """ "runs/de,runs/sw" -> the directories, each once."""
    found = [Path(part) for part in text.split(",") if part]
    if not found or len(set(found)) < len(found):
        raise ValueError(f"{text!r} names no run, or one twice; expected run directories, comma-separated")
    return found


def write_run(directory: Path, values: dict[str, Any]) -> None:
    """Writes run.json whole or not at all."""
    write_whole(directory / RUN_FILE, (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode())


def open_directory(output: Path, config: RunConfig, base: str) -> None:
    """ValueError where `output` is neither new nor a directory that holds this very run, to go on with.

    Nothing of another run, or of anyone's files, is written over.
    """
    check_writable(output)
    if _is_new(output):
        return
    if not (output / RUN_FILE).is_file():
        raise ValueError(f"--output {output} holds other files and no {RUN_FILE}; choose a new directory")
    found = read_run(output)
    if difference := _difference(found, config, base):
        raise ValueError(
            f"--output {output} holds another run: {difference}; choose a new directory, or repeat its settings"
        )


def suits(directory: Path, config: RunConfig, base: str) -> bool:
    """Whether the directory is new, or holds this very run unfinished."""
    if not (directory / RUN_FILE).is_file():
        return _is_new(directory)
    found = read_run(directory)
    return not found.get("finished") and not _difference(found, config, base)


def _is_new(directory: Path) -> bool:
    """Whether nothing is there, or only a dry run's plan, or what a run leaves that ended before its run.json."""
    names = {path.name for path in directory.iterdir()} if directory.exists() else set()
    if FOLDER in names and any((directory / FOLDER).iterdir()):
        return False
    return names <= {FOLDER, PLAN_FILE, f"{RUN_FILE}{UNFINISHED}"}


def same_rows(directory: Path, fingerprint: str) -> None:
    """ValueError where a run is there and learnt other rows: its place in the data would mean other ones."""
    if (directory / RUN_FILE).is_file() and read_run(directory)["rows"] not in (None, fingerprint):
        raise ValueError(f"the training rows have changed since {directory} began; choose a new --output")


def _difference(found: dict[str, Any], config: RunConfig, base: str) -> str | None:
    """The first setting in which a run differs from what is asked for, in words."""
    here, there = config.as_json(), found["config"]
    for name in sorted(set(here) | set(there), key=lambda name: (name != "method", name)):
        if name not in MAY_DIFFER and here.get(name) != there.get(name):
            return f"its {name.replace('_', '-')} is {shown(there.get(name))}, given {shown(here.get(name))}"
    return (
        None if found.get("base") == base else f"its base model has the hash {shown(found.get('base'))}, given {base}"
    )


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
    """ValueError where something is there already, or nothing can be written."""
    check_writable(directory)
    if directory.exists() and any(directory.iterdir()):
        raise ValueError(f"{directory} holds files already; give a new directory")


def check_writable(directory: Path) -> None:
    """ValueError where nothing can be written to a directory, there already or still to be made."""
    place = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    where = f"{place}" if place == directory else f"{directory}: {place}"
    if not place.is_dir():
        raise ValueError(f"{where} is a file; give a new directory")
    if not os.access(place, os.W_OK):
        raise ValueError(f"{where} may not be written to; give another directory")


def check_new_file(path: Path) -> None:
    """ValueError where something is there already, or nothing can be written."""
    if path.exists():
        raise ValueError(f"{path} is there already; give a new file")
    check_writable(path.parent)


class Busy(ValueError):
    """Another process holds the lock."""


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Makes the directory; a ValueError where another process that asked so still runs."""
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
    """A disk that is full or gone while a run's files are written, as a ValueError."""
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"{directory} cannot be written to ({error.strerror or error}); what was saved before is kept: make room "
            "there, and the same command goes on"
        ) from error


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all, also where the machine stops; makes its directory.

    Of several processes the first one does it. Where it cannot be written nothing of it is left.
    """
    if not hosts.first():
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
