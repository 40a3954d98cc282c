"""--list: each cell with its state, its directory, and the plain commands that would make it."""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, TypeVar

from jaxprefix.evaluation.settings import Evaluation
from jaxprefix.io.messages import shell
from jaxprefix.probe.settings import Probe
from jaxprefix.runs.config import RunConfig
from jaxprefix.study.folder import Folder
from jaxprefix.study.plan import Cell, Plan

Settings = TypeVar("Settings", Evaluation, Probe)


def listing(plan: Plan, folder: Folder, only: str | None = None) -> Iterator[str]:
    """A line for each cell. No model is read."""
    for cell in plan.cells(only):
        yield f"{state(cell, folder)}  {folder.evaluation(cell)}  {' && '.join(commands(cell, folder))}"


def state(cell: Cell, folder: Folder) -> str:
    """failed, probed, evaluated, trained or missing."""
    if folder.failure(cell):
        return "failed"
    if folder.state(cell, "evaluate") is not None:
        return "probed" if cell.probe and folder.is_probed(cell) else "evaluated"
    return "trained" if folder.is_trained(cell) else "missing"


def commands(cell: Cell, folder: Folder) -> list[str]:
    """The commands that train, evaluate and probe the cell."""
    run = shell(folder.run(cell))
    train = f"python -m jaxprefix.train{train_flags(folder.config(cell))} --output {run}"
    own = "" if folder.evaluation(cell) == folder.run(cell) else f" --output {shell(folder.evaluation(cell))}"
    evaluation = f"python -m jaxprefix.evaluation {run}{changed_flags(cell.evaluation, Evaluation(), folder)}{own}"
    probe = cell.probe and f"python -m jaxprefix.probe {run}{changed_flags(cell.probe, Probe(), folder)}"
    return [train, evaluation, *([probe] if probe else [])]


def train_flags(config: RunConfig) -> str:
    """The flags in which a run differs from the defaults."""
    values, defaults = config.as_json(), {**RunConfig().as_json(), **_method_defaults(config)}
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            changed = {key: inner for key, inner in value.items() if inner != defaults[name][key]}
            flat |= {f"{name}.{key}": inner for key, inner in changed.items()}
        elif value != defaults[name]:
            flat[name] = value
    return _flags(flat)


def changed_flags(settings: Settings, defaults: Settings, folder: Folder) -> str:
    """The flags in which an evaluation or a probe differs from the defaults."""
    values = {part.name: getattr(settings, part.name) for part in fields(settings)}
    values |= {"data": folder.data, "mesh": folder.mesh, "platform": folder.platform}
    return _flags({name: value for name, value in values.items() if value != getattr(defaults, name)})


def _method_defaults(config: RunConfig) -> dict[str, Any]:
    defaults = RunConfig(method=config.method).as_json()
    return {name: value for name, value in defaults.items() if isinstance(value, Mapping)}


def _flags(values: Mapping[str, Any]) -> str:
    flags = []
    for name, value in values.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            flags.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            flags.append(f"--{flag} {shell(value)}")
    return "".join(f" {flag}" for flag in flags)
