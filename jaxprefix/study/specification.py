"""A specification: the tables of a study, each a product of settings, in TOML."""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from jaxprefix.errors import InputError
from jaxprefix.io.messages import one_line, short_repr
from jaxprefix.io.values import value_of
from jaxprefix.runs.config import RunConfig
from jaxprefix.runs.from_json import from_json

Kind = Literal["scores", "line", "matrix", "groups", "parameters"]
Axes = Mapping[str, tuple[Any, ...]]  # setting, such as "lora.rank" -> its values
SPECS = files("jaxprefix.study") / "specs"


@dataclass(frozen=True)
class Known:
    """A published figure, shown beside ours."""

    where: dict
    """Settings of the row that it belongs to, such as method = "prefix"."""
    value: float
    """In percent; a number of parameters in a table of kind "parameters"."""
    task: str = ""
    figure: str = "all"
    """all (the mean of all languages), others (without the training language), source, gap, or a language."""
    about: str = ""


@dataclass(frozen=True)
class Grid:
    """A product of settings of the runs and of their evaluations, and the settings with which its runs are probed."""

    run: Axes = field(default_factory=dict)
    evaluation: Axes = field(default_factory=dict)
    probe: Mapping[str, Any] = field(default_factory=dict)
    """Settings of `Probe`, one value each; without any, the runs are not probed."""


@dataclass(frozen=True)
class Table:
    """One table or figure of the study: the rows of its grids, and how they are shown."""

    name: str
    title: str = ""
    kind: Kind = "scores"
    """scores; line (over `x`); matrix (training language × language); groups (by `by`); parameters (nothing is run)."""
    x: str | None = None
    by: Literal["script", "family", "resource"] | None = None
    select: Literal["loss", "score"] | None = None
    """How the learning rate is chosen: by the held-out loss, or by the score in the training language."""
    baseline: dict | None = None
    """The settings in which the baseline of a row differs from it, such as method = "none"."""
    languages: str | None = None
    """Comma-separated: show only these."""
    note: str = ""
    known: tuple[Known, ...] = ()
    grids: tuple[Grid, ...] = ()


@dataclass(frozen=True)
class Specification:
    """What a study trains, evaluates and shows."""

    name: str
    about: str
    tables: tuple[Table, ...]

    def smaller(
        self, models: Sequence[str] = (), steps: int | None = None, limit: int | None = None, seeds: Sequence[int] = ()
    ) -> "Specification":
        """The same study with other models, steps, questions per language, or seeds."""
        run: dict[str, tuple[Any, ...]] = {"model": tuple(models), "seed": tuple(seeds)}
        run["steps"] = () if steps is None else (steps,)
        evaluation = () if limit is None else (limit,)

        def change(grid: Grid) -> Grid:
            changed = {**grid.run, **{name: values for name, values in run.items() if values}}
            if steps is not None:
                changed.pop("epochs", None)
            limited = {"limit": evaluation} if evaluation else {}
            return replace(grid, run=changed, evaluation={**grid.evaluation, **limited})

        tables = (replace(table, grids=tuple(map(change, table.grids))) for table in self.tables)
        return replace(self, tables=tuple(tables))


def names() -> list[str]:
    """The names of the package's specifications."""
    return sorted(entry.name.removesuffix(".toml") for entry in SPECS.iterdir() if entry.name.endswith(".toml"))


def read(name: str) -> Specification:
    """The specification of the package with this name, or in this file. InputError names the file and the problem."""
    path = Path(name)
    if not path.is_file():
        if name not in names():
            raise InputError(f"{name} is not a specification; give a TOML file, or one of {', '.join(names())}")
        path = Path(str(SPECS / f"{name}.toml"))
    try:
        return parse(path.read_bytes(), path.stem)
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror}") from None
    except InputError as error:
        raise InputError(f"{name}: {error}") from None


def parse(content: bytes, name: str) -> Specification:
    """The specification in a TOML file's content. Settings in [run], [evaluation] and [probe] are of every grid."""
    try:
        values = tomllib.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"it is not TOML: {one_line(error)}") from None
    _check_keys(values, ("about", "run", "evaluation", "probe", "table"), "the specification")
    common = _settings_of(values)
    tables = [_table(part, common) for part in _objects(values, "table")]
    if not tables:
        raise InputError("it has no [[table]]")
    for table in tables:
        if [other.name for other in tables].count(table.name) > 1:
            raise InputError(f"two tables have the name {table.name!r}")
    unused = [axis for axis in common.run if "." in axis and not any(_uses(table, axis) for table in tables)]
    if unused:
        raise InputError(f"no cell has the method of {unused[0]}; remove it from [run], or add the method")
    return Specification(name, value_of(values, "about", str | None) or "", tuple(tables))


def _table(values: Mapping[str, Any], common: Grid) -> Table:
    where = f"table {short_repr(values.get('name', ''))}"
    try:
        _check_keys(values, ("grid", *(part.name for part in fields(Table) if part.name != "grids")), "it")
        name = value_of(values, "name", str)
        grids = tuple(_grid(part, common) for part in _objects(values, "grid"))
        known = tuple(_known(part) for part in _objects(values, "known"))
        others = {key: value for key, value in values.items() if key not in ("grid", "known")}
        table = replace(from_json(Table, others), grids=grids, known=known)
        table = replace(table, baseline=table.baseline and _settings(table.baseline))
        if not name.strip():
            raise InputError("its name is empty")
        if not grids:
            raise InputError("it has no [[table.grid]]")
        if (table.kind == "line") != (table.x is not None):
            raise InputError('kind "line" and x belong together; give both, or neither')
        if (table.kind == "groups") != (table.by is not None):
            raise InputError('kind "groups" and by belong together; give both, or neither')
        return table
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _grid(values: Mapping[str, Any], common: Grid) -> Grid:
    _check_keys(values, ("run", "evaluation", "probe"), "a grid")
    own = _settings_of(values)
    run = {**common.run, **own.run}
    methods = {part for method in run.get("method", ("prefix",)) if isinstance(method, str) for part in _parts(method)}
    for axis in own.run:
        if "." in axis and axis.partition(".")[0] not in methods:
            raise InputError(f"no cell has the method of {axis}; remove it, or add the method")
    return Grid(run, {**common.evaluation, **own.evaluation}, {**common.probe, **own.probe})


def _settings_of(values: Mapping[str, Any]) -> Grid:
    run, evaluation, probe = (value_of(values, part, dict | None) or {} for part in ("run", "evaluation", "probe"))
    return Grid(_axes(run), _axes(evaluation), probe)


def _known(values: Mapping[str, Any]) -> Known:
    value_of(values, "where", dict, "known: ")
    value_of(values, "value", float, "known: ")
    known = from_json(Known, values, "known.")
    return replace(known, where=_settings(known.where))


def _settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """{"lora": {"rank": 4}} -> {"lora.rank": 4}"""
    axes = _axes(values)
    for name, found in axes.items():
        if name.partition(".")[0] not in (*RunConfig.__dataclass_fields__, "evaluation"):
            raise InputError(f"{short_repr(name)} is not a setting of a run")
        if len(found) > 1:
            raise InputError(f"{name} is {short_repr(list(found))}; expected one value")
    return {name: found[0] for name, found in axes.items()}


def _uses(table: Table, axis: str) -> bool:
    methods = {method for grid in table.grids for method in grid.run.get("method", ("prefix",))}
    return axis.partition(".")[0] in {part for method in methods for part in _parts(str(method))}


def _parts(method: str) -> list[str]:
    return method.replace("-", "_").split("+")


def _axes(values: Mapping[str, Any], within: str = "") -> dict[str, tuple[Any, ...]]:
    """{"lr": [1e-3, 3e-4], "lora": {"rank": 4}} -> {"lr": (1e-3, 3e-4), "lora.rank": (4,)}"""
    axes: dict[str, tuple[Any, ...]] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            if within:
                raise InputError(f"{within}{name} is {short_repr(value)}; expected a value")
            axes |= _axes(value, f"{within}{name}.")
        else:
            axes[within + name] = tuple(value) if isinstance(value, list) else (value,)
            if not axes[within + name]:
                raise InputError(f"the axis {within}{name} has no value; give at least one")
            if len(set(map(repr, axes[within + name]))) < len(axes[within + name]):
                raise InputError(f"the axis {within}{name} has a value twice")
    return axes


def _objects(values: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    parts = value_of(values, key, list | None) or []
    if not all(isinstance(part, dict) for part in parts):
        raise InputError(f"{key} is {short_repr(parts)}; expected [[{key}]]")
    return parts


def _check_keys(values: Mapping[str, Any], known: Iterable[str], what: str) -> None:
    if unknown := sorted(set(values) - set(known)):
        raise InputError(f"{what} has {short_repr(unknown[0])}; expected {', '.join(known)}")
