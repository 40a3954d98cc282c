"""The mean and spread over runs that differ only in their seed, by language, for the mean of the others and the gap."""

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

# Settings that change no figures. The base may have another path, because its hash is compared.
MAY_DIFFER = "seed mesh platform data model log_every eval_every save_every tensorboard wandb trackio".split()


@dataclass(frozen=True)
class Seeds:
    """Averages evaluated runs that differ only in their seed."""

    runs: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="RUN,RUN[,RUN...]")]]
    """The run directories, comma-separated."""
    output: Path | None = None
    """Also write the figures to this JSON file."""


class Spread(TypedDict):
    """Mean and spread of one figure, in 0..1 (a gap may be negative)."""

    mean: float
    sd: float  # the sample standard deviation (divided by runs - 1)
    min: float
    max: float


class TaskSpread(TypedDict):
    """The figures of one task, each by metric."""

    metrics: list[str]
    languages: dict[str, dict[str, Spread]]
    mean_others: dict[str, Spread] | None
    gap: dict[str, Spread] | None


def seeds(settings: Seeds) -> dict[str, Any]:
    """Prints a table for each task, and writes and returns the figures.

    InputError, in one line, if the runs differ in more than their seed, or were evaluated on different rows.
    """
    directories = run_directories(settings.runs)
    if len(directories) < 2:
        raise InputError(f"{settings.runs} is one run; a spread needs several, comma-separated: RUN,RUN,RUN")
    if settings.output:
        check_new_file(settings.output)
    seed_numbers = _check_runs(directories)
    reports = [read_report(directory) for directory in directories]
    spreads: dict[str, TaskSpread] = {}
    for name in _check_same(directories, "tasks", [list(report["tasks"]) for report in reports]):
        task_reports = [report["tasks"][name] for report in reports]
        _check_same(directories, f"metrics of {name}", [task["metrics"] for task in task_reports])
        rows = [{code: scores["n"] for code, scores in task["languages"].items()} for task in task_reports]
        _check_same(directories, f"rows of {name} by language", rows)
        spreads[name] = spread(task_reports)
    console, source = Console(), reports[0]["source"]
    for name, task in spreads.items():
        title = f"{name}: {reports[0]['model']}, {reports[0]['method']}, {len(directories)} seeds"
        console.print(fitted(title, _cells(task, source_language(reports[0]["tasks"][name]))))
    values = {"runs": list(map(str, directories)), "seeds": seed_numbers, "source": source, "tasks": spreads}
    if settings.output:
        write_output(settings.output, values)
        print(f"figures: {settings.output}")
    return values


def spread(runs: Sequence[TaskReport]) -> TaskSpread:
    """The means and spreads over several reports of one task, with the same languages and metrics."""
    metrics = runs[0]["metrics"]

    def by_metric(parts: Sequence[Mapping[str, float] | None]) -> dict[str, Spread] | None:
        known = [part for part in parts if part]
        return {name: _spread([part[name] for part in known]) for name in metrics} if known else None

    languages = {code: by_metric([run["languages"][code] for run in runs]) or {} for code in runs[0]["languages"]}
    mean_others, gap = by_metric([run["mean_others"] for run in runs]), by_metric([run["gap"] for run in runs])
    return TaskSpread(metrics=metrics, languages=languages, mean_others=mean_others, gap=gap)


def _spread(values: Sequence[float]) -> Spread:
    return Spread(mean=statistics.fmean(values), sd=statistics.stdev(values), min=min(values), max=max(values))


def _check_runs(directories: Sequence[Path]) -> list[int]:
    """The runs' seeds; InputError if they differ in anything else, or if two have the same seed."""
    runs = [read_run(directory) for directory in directories]
    for directory, run in zip(directories, runs, strict=True):
        if not run["finished"]:
            raise InputError(f"run {directory} is not finished; finish it, or leave it out")
    configs = [RunConfig.from_json(run["config"]).as_json() for run in runs]
    for name in sorted({name for config in configs for name in config}, key=lambda name: (name != "method", name)):
        if name not in MAY_DIFFER:
            _check_same(directories, name.replace("_", "-"), [config.get(name) for config in configs])
    _check_same(directories, "base (its hash)", [run["base"] for run in runs])
    _check_same(directories, "source language", [run["source"] for run in runs])
    seed_numbers = [config["seed"] for config in configs]
    for index, seed in enumerate(seed_numbers):
        if seed in seed_numbers[:index]:
            first = directories[seed_numbers.index(seed)]
            raise InputError(f"{first} and {directories[index]} have the same seed, {seed}; leave one out")
    return seed_numbers


def _check_same(directories: Sequence[Path], what: str, values: Sequence[Any]) -> Any:
    """The value that all runs have; InputError, which names two of them, if they differ."""
    for directory, value in zip(directories, values, strict=True):
        if value != values[0]:
            both = f"{directories[0]} has {values[0]!r:.100}, {directory} has {value!r:.100}"
            raise InputError(f"the runs differ in more than their seed: {what}: {both}; give runs of several seeds")
    return values[0]


def _cells(task: TaskSpread, source: str | None) -> Cells:
    """Mean and standard deviation of every metric, and the minimum and maximum of the headline."""
    headline, *rest = task["metrics"]
    columns = ["language", f"{headline} %", "sd", "min..max", *(text for name in rest for text in (f"{name} %", "sd"))]

    def line(title: str, spreads: Mapping[str, Spread], signed: bool = False) -> list[str]:
        to_text = points if signed else percent
        texts = [(to_text(spreads[name]["mean"]), percent(spreads[name]["sd"])) for name in task["metrics"]]
        ends = f"{to_text(spreads[headline]['min'])}..{to_text(spreads[headline]['max'])}"
        return [title, *texts[0], ends, *(text for pair in texts[1:] for text in pair)]

    codes = sorted(task["languages"], key=lambda code: (code != source, code))
    lines = [line(f"{code} (source)" if code == source else code, task["languages"][code]) for code in codes]
    closing = [line("mean of others", task["mean_others"])] if task["mean_others"] else []
    closing += [line("gap", task["gap"], signed=True)] if task["gap"] else []
    return Cells(columns, [lines], closing)
