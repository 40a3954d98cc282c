"""A specification's cells, and the rows of its tables. Cells that several tables share are one cell."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from jaxprefix import tasks
from jaxprefix.errors import InputError
from jaxprefix.evaluation.settings import Evaluation, names
from jaxprefix.io.messages import short_repr
from jaxprefix.probe.settings import Probe
from jaxprefix.runs.base_model import EMBEDDED_TASK
from jaxprefix.runs.config import RunConfig, model_label
from jaxprefix.runs.from_json import from_json
from jaxprefix.study.specification import Axes, Grid, Specification, Table
from jaxprefix.train.dataset import languages, training_task

# Settings of the machine, which are flags of the command and change no figure, or that belong to no study.
OF_COMMAND = ("data", "mesh", "platform")
TRACKERS = ("tensorboard", "wandb", "trackio")
NOT_IN_STUDIES = ("output", "baseline", *TRACKERS)
UNNAMED = (*OF_COMMAND, *TRACKERS, "keep", "log_every", "save_every")  # not in the name of a cell
# A study shows what a task loses by an evaluation on it, with the frozen base as the baseline.
NOT_IN_PROBES = ("output", "forgetting_task")
# The settings that a run of method none has. It learns nothing, so the others would only make equal cells differ.
OF_NONE = ("model", "method", "task", "language", "train_file", "eval_file", "max_length", "chat", "chat_date", "dtype")


@dataclass(frozen=True)
class Cell:
    """One run and one evaluation of it. `nested` is part of its directory if the run has an earlier evaluation.

    The probes belong to the run: all cells of a run that are probed are probed alike.
    """

    config: RunConfig
    evaluation: Evaluation
    nested: str = ""
    probe: Probe | None = None
    """With what the run is probed; None if it is not."""

    @cached_property
    def run(self) -> str:
        """The name of the run's directory: its method, task and language, and a hash of its settings."""
        config = self.config
        words = (config.method, config.task or Path(config.train_file or EMBEDDED_TASK).stem, config.language or "en")
        readable = re.sub(r"[^\w+.-]", "_", "-".join(words))
        return f"{readable}-{digest(named_settings(config))}"

    @property
    def name(self) -> str:
        """The directory of the evaluation, relative to the study's."""
        return f"{self.run}/{self.nested}" if self.nested else self.run

    @property
    def tasks(self) -> list[str]:
        """The tasks that it is evaluated on."""
        if self.evaluation.eval_file:
            return [self.evaluation.eval_file.stem]
        return names(self.evaluation.task or "")

    def setting(self, name: str) -> Any:
        """A setting such as "lora.rank" or "evaluation.temperature"; None if it does not matter to the method."""
        if name.startswith("evaluation."):
            return getattr(self.evaluation, name.removeprefix("evaluation."))
        if self.config.method == "none" and name not in OF_NONE:
            return None
        values: Any = named_settings(self.config)
        for part in name.split("."):
            values = values.get(part) if isinstance(values, dict) else None
        return values


@dataclass(frozen=True)
class Row:
    """A row of a table: one setting of every axis, with all seeds and, if one is to be chosen, all learning rates."""

    labels: Mapping[str, Any]
    candidates: Mapping[float | None, tuple[Cell, ...]]  # the learning rate -> a cell for each seed
    select: str | None

    @property
    def cells(self) -> Iterator[Cell]:
        """All cells, of every learning rate."""
        return (cell for cells in self.candidates.values() for cell in cells)


@dataclass(frozen=True)
class Plan:
    """The rows of each table of a specification, by the table's name."""

    specification: Specification
    rows: Mapping[str, tuple[Row, ...]]

    def cells(self, only: str | None = None) -> list[Cell]:
        """The distinct cells of all tables, or of one, without those of which only the size is shown."""
        tables = (table for table in self.tables(only) if table.kind != "parameters")
        return _distinct(cell for table in tables for row in self.rows[table.name] for cell in row.cells)

    def tables(self, only: str | None = None) -> list[Table]:
        """All tables, or the one with this name. InputError if there is none."""
        tables = [table for table in self.specification.tables if only in (None, table.name)]
        if not tables:
            known = ", ".join(table.name for table in self.specification.tables)
            raise InputError(f"--only {only}: there is no such table; expected one of {known}")
        return tables


def plan(specification: Specification) -> Plan:
    """Expands the grids. InputError names the table, and a setting that is unknown, invalid or contradicts another."""
    rows, first, models = {}, dict[str, Evaluation](), dict[str, str | None]()
    probes = dict[str, Probe]()
    for table in specification.tables:
        try:
            cells = [_nest(cell, first) for grid in table.grids for cell in expand(grid)]
            _check_labels(cells, models)
            _check_probes(cells, probes)
            axes = [name for grid in table.grids for name in _axis_names(grid)]
            rows[table.name] = _rows(table, _distinct(cells), list(dict.fromkeys(axes)))
            _check_table(table, rows[table.name])
        except InputError as error:
            raise InputError(f"table {table.name!r}: {error}") from None
    return Plan(specification, rows)


def expand(grid: Grid) -> list[Cell]:
    """The cells of a grid, with repetitions. A setting of a method is left out of cells without this method."""
    for settings, others in (
        (grid.run, NOT_IN_STUDIES),
        (grid.evaluation, NOT_IN_STUDIES),
        (grid.probe, NOT_IN_PROBES),
    ):
        if refused := [name for name in settings if name in (*OF_COMMAND, *others)]:
            advice = f"; give --{refused[0]} to the command" if refused[0] in OF_COMMAND else ""
            advice = "; name the task in evaluation" if refused[0] == "forgetting_task" else advice
            raise InputError(f"{refused[0]} is not a setting of a specification{advice}")
    probe = _probe(grid.probe) if grid.probe else None
    cells = [_cell(run, evaluation) for run in _product(grid.run) for evaluation in _product(grid.evaluation)]
    return [replace(cell, probe=probe) for cell in cells]


def named_settings(config: RunConfig) -> dict[str, Any]:
    """The settings that a cell's name and labels depend on."""
    values = {name: value for name, value in config.as_json().items() if name not in UNNAMED}
    files = {name: Path(values[name]).name for name in ("train_file", "eval_file") if values.get(name)}
    if fisher := values.get("full", {}).get("fisher_text"):
        files["full"] = values["full"] | {"fisher_text": Path(fisher).name}
    return values | files | {"model": model_label(config.model)}


def figure_settings(settings: Evaluation | Probe) -> dict[str, Any]:
    """The settings of an evaluation, or of a probe, that change figures."""
    values = {part.name: getattr(settings, part.name) for part in fields(settings)}
    values = {name: value for name, value in values.items() if name not in (*OF_COMMAND, "output", "baseline")}
    return {name: value.name if isinstance(value, Path) else value for name, value in values.items()}


def digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


def _product(axes: Axes) -> Iterator[dict[str, Any]]:
    for values in product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


def _cell(run: Mapping[str, Any], evaluation: Mapping[str, Any]) -> Cell:
    method = run.get("method", "prefix")
    parts = str(method).replace("-", "_").split("+")
    values: dict[str, Any] = {}
    for name, value in run.items():
        owner, dot, setting = name.partition(".")
        if not dot:
            values[name] = value
        elif owner in parts:
            values.setdefault(owner, {})[setting] = value
    config = RunConfig.from_json(values)
    config.check()
    if config.method == "none":
        config = RunConfig(**{name: getattr(config, name) for name in OF_NONE})
    settings = from_json(Evaluation, evaluation, "evaluation.")
    if not settings.task and not settings.eval_file:
        if config.train_file:
            raise InputError("runs on your own rows need an evaluation: task or eval_file")
        settings = replace(settings, task=",".join(tasks.find(config.task or EMBEDDED_TASK).eval_tasks) or config.task)
    settings.check()
    for name in names(settings.task) if settings.task else ():
        tasks.find(name)
    languages(config, training_task(config))  # raises for a task or language that cannot be trained on
    return Cell(config, settings)


def _probe(values: Mapping[str, Any]) -> Probe:
    settings = from_json(Probe, values, "probe.")
    settings.check()
    return settings


def _distinct(cells: Iterable[Cell]) -> list[Cell]:
    """Each cell once, with the probes that any of its copies has."""
    found: dict[str, Cell] = {}
    for cell in cells:
        if cell.probe or cell.name not in found:
            found[cell.name] = cell
    return list(found.values())


def _nest(cell: Cell, first: dict[str, Evaluation]) -> Cell:
    """The cell with its directory: the first evaluation of a run is in the run's own."""
    if first.setdefault(cell.run, cell.evaluation) == cell.evaluation:
        return cell
    return replace(cell, nested=f"evaluation-{digest(figure_settings(cell.evaluation))}")


def _axis_names(grid: Grid) -> list[str]:
    return [*grid.run, *(f"evaluation.{name}" for name in grid.evaluation)]


def _rows(table: Table, cells: Sequence[Cell], axes: Sequence[str]) -> tuple[Row, ...]:
    """The rows of the cells, with the axes in which they differ as labels."""
    apart = {"seed", *(("lr",) if table.select else ())}
    values = {name: [cell.setting(name) for cell in cells] for name in axes if name not in apart}
    shown = [name for name, found in values.items() if _differs(cells, found)]
    grouped: dict[str, tuple[dict[str, Any], dict[float | None, list[Cell]]]] = {}
    for cell in cells:
        labels = {name: cell.setting(name) for name in shown}
        _, candidates = grouped.setdefault(repr(labels), (labels, {}))
        candidates.setdefault(cell.config.lr if table.select else None, []).append(cell)
    return tuple(
        Row(labels, {rate: tuple(found) for rate, found in candidates.items()}, table.select)
        for labels, candidates in grouped.values()
    )


def _differs(cells: Sequence[Cell], values: Sequence[Any]) -> bool:
    """Whether a setting of the cells has several values, or one that only some cells of a method have."""
    by_method = {(cell.config.method, repr(value)) for cell, value in zip(cells, values, strict=True)}
    several = len({repr(value) for value in values if value is not None}) > 1
    return several or len(by_method) > len({method for method, _ in by_method})


def _check_table(table: Table, rows: Sequence[Row]) -> None:
    """InputError if the table names settings that no row has."""
    if table.x is not None and not any(table.x in row.labels for row in rows):
        raise InputError(f"x is {short_repr(table.x)}; expected an axis with several values")
    if table.kind == "matrix" and not any("language" in row.labels for row in rows):
        raise InputError('kind "matrix" needs the axis language with several values')
    if table.baseline is not None and not any(matches(row, table.baseline) for row in rows):
        raise InputError(f"no row has the baseline {short_repr(table.baseline)}; add its values to the axes")


def matches(row: Row, where: Mapping[str, Any]) -> bool:
    """Whether the cells of a row have these settings."""
    cell = next(row.cells)
    return all(cell.setting(name) == value for name, value in where.items())


def _check_labels(cells: Sequence[Cell], models: dict[str, str | None]) -> None:
    """InputError if two models have one name: their cells would be the same. `models` are those seen so far."""
    for cell in cells:
        label = model_label(cell.config.model)
        if models.setdefault(label, cell.config.model) != cell.config.model:
            both = f"{models[label]} and {cell.config.model}"
            raise InputError(f"{both} have the same name, {label}; rename one of the directories")


def _check_probes(cells: Sequence[Cell], probes: dict[str, Probe]) -> None:
    """InputError if a run would be probed in two ways. `probes` are those seen so far, by run."""
    for cell in cells:
        if cell.probe and probes.setdefault(cell.run, cell.probe) != cell.probe:
            raise InputError(f"another grid probes {cell.run} with other settings; give both grids the same probe")
