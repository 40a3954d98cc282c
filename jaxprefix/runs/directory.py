"""The run directory. Its run.json describes the run, and a run is never overwritten."""

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
FOLDER = "checkpoints"  # in the run directory
# The fields of run.json that are read again. "rows" is null for a run without training rows, such as method none.
RUN_FIELDS: dict[str, Any] = {
    "config": dict,
    "base": str,
    "source": str,
    "rows": str | None,
    "finished": bool,
    "steps": int,
    "versions": dict | None,
    "model_path": str | None,
    "earlier_steps": list | None,
}
OPTIONAL = ("versions", "model_path", "earlier_steps")
# A run can be resumed with these changed. Any other change makes it another run.
MAY_CHANGE = ("steps", "epochs", "mesh", "platform", "data", "keep", "on_nan")


def read_run(directory: Path) -> dict[str, Any]:
    """The object in DIRECTORY/run.json. InputError if it is missing or not valid."""
    path = directory / RUN_FILE if directory.is_dir() else directory
    run = path.parent if path.name == RUN_FILE else path
    if not path.is_file():
        raise InputError(f"{run} is not a run: it has no readable {RUN_FILE}; give the directory that training printed")
    try:
        values = read_object(path)
    except InputError as error:
        raise InputError(f"{error}; restore it, or train anew elsewhere") from None
    for name, kind in RUN_FIELDS.items():
        if (name not in values and name not in OPTIONAL) or not matches(kind, values.get(name)):
            value = short_repr(values[name]) if name in values else "missing"
            raise InputError(
                f"{path} is not a run's description: its {name} is {value}; expected {describe_type(kind)}"
            )
    try:
        RunConfig.from_json(values["config"])
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return values


def run_directories(text: str) -> list[Path]:
    """ "runs/de,runs/sw" -> the directories. InputError if one is repeated.

    An existing directory whose name has commas comes before two directories.
    """
    parts, directories = text.split(","), []
    while parts:
        names = (",".join(parts[:count]) for count in range(len(parts), 1, -1))
        name = next((name for name in names if Path(name).is_dir()), parts[0])
        directories += [Path(name)] if name else []
        del parts[: name.count(",") + 1]
    if not directories or len(set(directories)) < len(directories):
        raise InputError(f"{text!r} names no run, or one twice; expected run directories, comma-separated")
    return directories


def write_run(directory: Path, values: dict[str, Any]) -> None:
    """Writes run.json atomically."""
    write_atomically(directory / RUN_FILE, (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode())


def open_directory(output: Path, config: RunConfig, base: str) -> None:
    """InputError unless `output` is new or has the same run, to resume.

    Other runs and other files are never overwritten.
    """
    check_writable(output)
    if _is_new(output):
        return
    if not (output / RUN_FILE).is_file():
        raise InputError(f"--output {output} holds other files and no {RUN_FILE}; choose a new directory")
    if difference := _difference(read_run(output), config, base):
        raise InputError(
            f"--output {output} holds another run: {difference}; choose a new directory, or use the same settings"
        )


def check_path(directory: Path) -> None:
    """InputError for a path in which Orbax saves what it cannot find again: it reads brackets as a pattern."""
    path = str(directory.resolve())
    if letter := next((letter for letter in "[\\" if letter in path), None):
        raise InputError(f"a run cannot be saved in {path}: its path has {letter!r}; choose another name or directory")


def can_resume(directory: Path, config: RunConfig, base: str) -> bool:
    """Whether the directory is new, or has the same run, unfinished."""
    if not (directory / RUN_FILE).is_file():
        return _is_new(directory)
    values = read_run(directory)
    return not values.get("finished") and not _difference(values, config, base)


def _is_new(directory: Path) -> bool:
    """Whether the directory is empty, or has only a dry run's plan or the rest of a run that ended before run.json."""
    names = entries(directory)
    if FOLDER in names and any((directory / FOLDER).iterdir()):
        return False
    return names <= {FOLDER, PLAN_FILE, f"{RUN_FILE}{UNFINISHED}"}


def check_same_data(directory: Path, fingerprint: str) -> None:
    """InputError if the run in this directory has other training rows: its position in the data would not fit."""
    if (directory / RUN_FILE).is_file() and read_run(directory)["rows"] not in (None, fingerprint):
        raise InputError(f"the training rows have changed since {directory} was started; choose a new --output")


def _difference(run: dict[str, Any], config: RunConfig, base: str) -> str | None:
    """The first setting in which the run differs from `config`, in words, or None."""
    new, old = config.as_json(), RunConfig.from_json(run["config"]).as_json()  # settings that are newer than the run
    if new["chat_date"] is None:  # the run has its own
        new["chat_date"] = old.get("chat_date")
    for name in sorted(set(new) | set(old), key=lambda name: (name != "method", name)):
        if name not in MAY_CHANGE and new.get(name) != old.get(name):
            return f"its {name.replace('_', '-')} is {short_repr(old.get(name))}, given {short_repr(new.get(name))}"
    if run.get("base") != base:
        return f"its base model has the hash {short_repr(run.get('base'))}, given {base}"
    return None
