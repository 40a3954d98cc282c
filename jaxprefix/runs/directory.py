"""The run directory: found or made, never written over; run.json in it says what the run is."""

import json
from pathlib import Path
from typing import Any

from jaxprefix.errors import InputError
from jaxprefix.io.atomic import UNFINISHED, check_writable, entries, write_atomically
from jaxprefix.io.messages import short_repr
from jaxprefix.io.strict_json import read_object
from jaxprefix.io.values import describe_type, matches
from jaxprefix.runs.config import RunConfig

RUN_FILE = "run.json"
PLAN_FILE = "plan.json"  # of a dry run
FOLDER = "checkpoints"  # of the run directory, where Orbax saves
# What training writes there, and all that is relied on. Nothing is learnt from "rows" that are null, as of `none`.
RUN_FIELDS: dict[str, Any] = {
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
MAY_CHANGE = ("steps", "epochs", "mesh", "platform", "data", "keep", "on_nan")


def read_run(directory: Path) -> dict[str, Any]:
    """The object in DIRECTORY/run.json; InputError where training cannot have written it."""
    path = directory / RUN_FILE if directory.is_dir() else directory
    place = path.parent if path.name == RUN_FILE else path
    if not path.is_file():
        raise InputError(
            f"{place} is not a run: it has no readable {RUN_FILE}; give the directory that training printed"
        )
    try:
        values = read_object(path)
    except InputError as error:
        raise InputError(f"{error}; restore it, or train anew elsewhere") from None
    for name, kind in RUN_FIELDS.items():
        if (name not in values and name not in LATER) or not matches(kind, values.get(name)):
            given = short_repr(values[name]) if name in values else "missing"
            raise InputError(
                f"{path} is not a run's description: its {name} is {given}; expected {describe_type(kind)}"
            )
    try:
        RunConfig.from_json(values["config"])
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return values


def run_directories(text: str) -> list[Path]:
    """ "runs/de,runs/sw" -> the directories, each once."""
    found = [Path(part) for part in text.split(",") if part]
    if not found or len(set(found)) < len(found):
        raise InputError(f"{text!r} names no run, or one twice; expected run directories, comma-separated")
    return found


def write_run(directory: Path, values: dict[str, Any]) -> None:
    """Writes run.json whole or not at all."""
    write_atomically(directory / RUN_FILE, (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode())


def open_directory(output: Path, config: RunConfig, base: str) -> None:
    """InputError where `output` is neither new nor a directory that holds this very run, to go on with.

    Nothing of another run, or of anyone's files, is written over.
    """
    check_writable(output)
    if _is_new(output):
        return
    if not (output / RUN_FILE).is_file():
        raise InputError(f"--output {output} holds other files and no {RUN_FILE}; choose a new directory")
    found = read_run(output)
    if difference := _difference(found, config, base):
        raise InputError(
            f"--output {output} holds another run: {difference}; choose a new directory, or repeat its settings"
        )


def can_resume(directory: Path, config: RunConfig, base: str) -> bool:
    """Whether the directory is new, or holds this very run unfinished."""
    if not (directory / RUN_FILE).is_file():
        return _is_new(directory)
    found = read_run(directory)
    return not found.get("finished") and not _difference(found, config, base)


def _is_new(directory: Path) -> bool:
    """Whether nothing is there, or only a dry run's plan, or what a run leaves that ended before its run.json."""
    names = entries(directory)
    if FOLDER in names and any((directory / FOLDER).iterdir()):
        return False
    return names <= {FOLDER, PLAN_FILE, f"{RUN_FILE}{UNFINISHED}"}


def check_same_data(directory: Path, fingerprint: str) -> None:
    """InputError where a run is there and learnt other rows: its place in the data would mean other ones."""
    if (directory / RUN_FILE).is_file() and read_run(directory)["rows"] not in (None, fingerprint):
        raise InputError(f"the training rows have changed since {directory} began; choose a new --output")


def _difference(found: dict[str, Any], config: RunConfig, base: str) -> str | None:
    """The first setting in which a run differs from what is asked for, in words."""
    here, there = config.as_json(), found["config"]
    for name in sorted(set(here) | set(there), key=lambda name: (name != "method", name)):
        if name not in MAY_CHANGE and here.get(name) != there.get(name):
            return f"its {name.replace('_', '-')} is {short_repr(there.get(name))}, given {short_repr(here.get(name))}"
    return (
        None
        if found.get("base") == base
        else f"its base model has the hash {short_repr(found.get('base'))}, given {base}"
    )
