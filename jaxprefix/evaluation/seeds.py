"""Runs that differ in their seed alone: the mean over them and its spread, by language, of the others, of the gap."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict

import tyro
from rich.console import Console

from jaxprefix.errors import InputError
from jaxprefix.evaluation.report.cells import Cells, percent, points
from jaxprefix.evaluation.report.files import read_report, write_output
from jaxprefix.evaluation.report.summary import TaskReport, source_language
from jaxprefix.evaluation.report.terminal import fitted
from jaxprefix.io.atomic import check_new_file
from jaxprefix.runs.config import RunConfig
from jaxprefix.runs.directory import read_run, run_directories

# What changes no figure, or only where things are; the base is compared by its hash, whatever its path.
MAY_DIFFER = "seed mesh platform data model log_every eval_every save_every tensorboard wandb".split()


@dataclass(frozen=True)
class Seeds:
    """Averages evaluated runs that differ in their seed alone."""

    runs: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="RUN,RUN[,RUN...]")]]
    """The run directories, comma-separated."""
    output: Path | None = None
    """Also write the figures to this JSON file."""


class Spread(TypedDict):
    """Of one figure, in 0..1 (a gap may be below 0)."""

    mean: float
    sd: float  # of the sample: its square is divided by runs - 1
    min: float
    max: float


class TaskSpread(TypedDict):
    """One task's figures; every Spread by metric."""

    metrics: list[str]
    languages: dict[str, dict[str, Spread]]
    mean_others: dict[str, Spread] | None
    gap: dict[str, Spread] | None


def seeds(settings: Seeds) -> dict[str, Any]:
    """Prints a table a task, and writes and returns the figures.

    InputError, in one line, for runs that differ in more than their seed, or were not asked the same.
    """
    directories = run_directories(settings.runs)
    if len(directories) < 2:
        raise InputError(f"{settings.runs} is one run; a spread is of several, comma-separated: RUN,RUN,RUN")
    if settings.output:
        check_new_file(settings.output)
    numbers = _same_runs(directories)
    reports = [read_report(directory) for directory in directories]
    found: dict[str, TaskSpread] = {}
    for name in _same(directories, "tasks", [list(report["tasks"]) for report in reports]):
        own = [report["tasks"][name] for report in reports]
        _same(directories, f"metrics of {name}", [task["metrics"] for task in own])
        rows = [{code: scores["n"] for code, scores in task["languages"].items()} for task in own]
        _same(directories, f"rows of {name} by language", rows)
        found[name] = spread(own)
    console, source = Console(), reports[0]["source"]
    for name, task in found.items():
        title = f"{name}: {reports[0]['model']}, {reports[0]['method']}, {len(directories)} seeds"
        console.print(fitted(title, _cells(task, source_language(reports[0]["tasks"][name]))))
    values = {"runs": list(map(str, directories)), "seeds": numbers, "source": source, "tasks": found}
    if settings.output:
        write_output(settings.output, values)
        print(f"figures: {settings.output}")
    return values


def spread(runs: Sequence[TaskReport]) -> TaskSpread:
    """The means and spreads over reports of one task that have the same languages and metrics."""
    metrics = runs[0]["metrics"]

    def of(parts: Sequence[Mapping[str, float] | None]) -> dict[str, Spread] | None:
        known = [part for part in parts if part]
        return {name: _spread([part[name] for part in known]) for name in metrics} if known else None

    languages = {code: of([run["languages"][code] for run in runs]) or {} for code in runs[0]["languages"]}
    mean_others, gap = of([run["mean_others"] for run in runs]), of([run["gap"] for run in runs])
    return TaskSpread(metrics=metrics, languages=languages, mean_others=mean_others, gap=gap)


def _spread(values: Sequence[float]) -> Spread:
    return Spread(mean=statistics.fmean(values), sd=statistics.stdev(values), min=min(values), max=max(values))


def _same_runs(directories: Sequence[Path]) -> list[int]:
    """The runs' seeds; InputError where anything else differs, or nothing does."""
    described = [read_run(directory) for directory in directories]
    for directory, run in zip(directories, described, strict=True):
        if not run["finished"]:
            raise InputError(f"run {directory} is not finished; finish it, or leave it out")
    configs = [RunConfig.from_json(run["config"]).as_json() for run in described]
    for name in sorted({name for config in configs for name in config}, key=lambda name: (name != "method", name)):
        if name not in MAY_DIFFER:
            _same(directories, name.replace("_", "-"), [config.get(name) for config in configs])
    _same(directories, "base (its hash)", [run["base"] for run in described])
    _same(directories, "source language", [run["source"] for run in described])
    numbers = [config["seed"] for config in configs]
    for place, number in enumerate(numbers):
        if number in numbers[:place]:
            first = directories[numbers.index(number)]
            raise InputError(f"{first} and {directories[place]} have the same seed, {number}; leave one out")
    return numbers


def _same(directories: Sequence[Path], what: str, values: Sequence[Any]) -> Any:
    """What the runs share; InputError that names the two that do not."""
    for directory, value in zip(directories, values, strict=True):
        if value != values[0]:
            shown = f"{directories[0]} has {values[0]!r:.100}, {directory} has {value!r:.100}"
            raise InputError(f"the runs differ in more than their seed: {what}: {shown}; give runs of one kind")
    return values[0]


def _cells(task: TaskSpread, source: str | None) -> Cells:
    """Mean and standard deviation of every metric, the ends of the headline."""
    headline, *rest = task["metrics"]
    columns = ["language", f"{headline} %", "sd", "min..max", *(text for name in rest for text in (f"{name} %", "sd"))]

    def line(title: str, found: Mapping[str, Spread], signed: bool = False) -> list[str]:
        form = points if signed else percent
        texts = [(form(found[name]["mean"]), percent(found[name]["sd"])) for name in task["metrics"]]
        ends = f"{form(found[headline]['min'])}..{form(found[headline]['max'])}"
        return [title, *texts[0], ends, *(text for pair in texts[1:] for text in pair)]

    codes = sorted(task["languages"], key=lambda code: (code != source, code))
    lines = [line(f"{code} (source)" if code == source else code, task["languages"][code]) for code in codes]
    closing = [line("mean of others", task["mean_others"])] if task["mean_others"] else []
    closing += [line("gap", task["gap"], signed=True)] if task["gap"] else []
    return Cells(columns, [lines], closing)
