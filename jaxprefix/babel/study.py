"""python -m jaxprefix.babel study: trains and compares methods on tasks of the embedded world, with several seeds.

Each run is an ordinary run directory. A finished run is not repeated.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from rich.console import Console

from jaxprefix.babel.study_picture import draw
from jaxprefix.errors import InputError
from jaxprefix.evaluation.evaluate import evaluate
from jaxprefix.evaluation.report.cells import Cells
from jaxprefix.evaluation.report.files import json_text, read_report
from jaxprefix.evaluation.report.intervals import grouped, resource
from jaxprefix.evaluation.report.markdown import tables
from jaxprefix.evaluation.report.summary import TaskReport, mean, others_of
from jaxprefix.evaluation.report.terminal import fitted
from jaxprefix.evaluation.settings import Evaluation, names
from jaxprefix.io.atomic import entries, exclusive, write_atomically
from jaxprefix.runs.base_model import open_base
from jaxprefix.runs.config import RunConfig, parse_method
from jaxprefix.runs.directory import RUN_FILE, open_directory, read_run
from jaxprefix.tasks.babel import BABEL_CHOICE, BABEL_MATH, BABEL_NLI, BABEL_QA
from jaxprefix.tasks.babel.choice import OPTIONS
from jaxprefix.tasks.babel.nli import LABELS
from jaxprefix.tasks.task import check_languages
from jaxprefix.train.loop import train

TASKS = {task.name: task for task in (BABEL_QA, BABEL_NLI, BABEL_CHOICE, BABEL_MATH)}
CHANCE = {BABEL_NLI.name: 1 / len(LABELS), BABEL_CHOICE.name: 1 / len(OPTIONS)}
"""Task -> accuracy of random guessing, for tasks whose answer is chosen."""
BASE = "none"
LOG = "log.txt"  # the output of the runs

Figures = dict[str, list[float]]
"""Column ("en", "others", "gap", "class 5" to "class 1") -> the score of each seed, in 0..1."""


@dataclass(frozen=True)
class Study:
    """Trains each method on each task in English and evaluates it in all languages. The same command resumes it."""

    output: Path = Path("runs/study-babel")
    """The directory of the runs, the tables and the picture."""
    methods: str = "prefix,llama-adapter,soft-prompt,lora,bottleneck,full"
    """Comma-separated; the frozen base is always included."""
    tasks: str = ",".join(TASKS)
    """Comma-separated."""
    seeds: str = "0"
    """Comma-separated; each method is trained with each seed."""
    steps: int | None = None
    """Steps of each run; by default two passes over the English rows."""
    languages: str | None = None
    """Comma-separated codes; by default all languages of the world."""
    limit: int | None = None
    """Questions per language."""


def study(settings: Study) -> dict[str, dict[str, Figures]]:
    """Prints a line per run and a table per task, and writes study.json, study.md and study.png.

    Returns:
        task -> method -> figures

    Raises:
        InputError: for an unknown name, or if the directory has runs of another model or with other settings.
    """
    methods, chosen, seeds = names(settings.methods), names(settings.tasks), names(settings.seeds)
    for name in chosen:
        if name not in TASKS:
            raise InputError(f"--tasks {name!r} is unknown; expected {', '.join(TASKS)}")
    for method in methods:
        parse_method(method)
    if not all(seed.isdecimal() for seed in seeds):
        raise InputError(f"--seeds {settings.seeds!r}; expected whole numbers, comma-separated, such as 0,1,2")
    evaluation = Evaluation(task=",".join(chosen), languages=settings.languages, limit=settings.limit, mesh="1x1")
    evaluation.check()
    RunConfig(steps=settings.steps).check()
    check_languages(BABEL_QA, names(settings.languages) if settings.languages else ())
    _check_output(settings.output)
    with exclusive(settings.output):
        runs = [(BASE, "", 0), *((m, t, int(s)) for t in chosen for m in methods if m != BASE for s in seeds)]
        for number, run in enumerate(runs, start=1):
            print(f"{number} of {len(runs)}: {_run(settings, evaluation, *run)}", flush=True)
        results = {
            task: {
                method: _figures([_task_report(settings.output, method, task, int(seed)) for seed in seeds])
                for method in (BASE, *(name for name in methods if name != BASE))
            }
            for task in chosen
        }
        _write(settings.output, results, len(seeds))
    return results


def _check_output(output: Path) -> None:
    """InputError if the directory has files that are not a study's."""
    if not (output / BASE / RUN_FILE).is_file() and entries(output) - {BASE, LOG}:
        raise InputError(f"--output {output} holds other files and is not a study; give a new directory")


def _run_directory(output: Path, method: str, task: str, seed: int) -> Path:
    return output / BASE if method == BASE else output / task / f"{method}-{seed}"


def _task_report(output: Path, method: str, task: str, seed: int) -> TaskReport:
    return read_report(_run_directory(output, method, task, seed))["tasks"][task]


def _run(settings: Study, evaluation: Evaluation, method: str, task: str, seed: int) -> str:
    """Trains and evaluates one run unless it is done; returns a line with its scores and the time.

    Args:
        evaluation: of all tasks of the study.
        task: the task of the run; "" for the frozen base, which is evaluated on all tasks.
    """
    directory, began = _run_directory(settings.output, method, task, seed), time.monotonic()
    evaluation = replace(evaluation, task=task or evaluation.task)
    config = RunConfig(method=method, task=task or BABEL_QA.name, seed=seed, steps=settings.steps, mesh="1x1")
    open_directory(directory, config, open_base(None).fingerprint)  # raises for a run of another model
    if _is_done(directory, config, evaluation):
        return f"{directory}: already done"
    with open(settings.output / LOG, "a", encoding="utf-8") as log, redirect_stdout(log):
        train(config, directory, quiet=True)
        report = evaluate(directory, evaluation, quiet=True)
    scores = []
    for name in names(evaluation.task or ""):
        result = report["tasks"][name]
        metric, source, others = result["metrics"][0], result["source"], result["mean_others"]
        figures = [f"en {100 * source[metric]:.1f}"] if source else []
        figures += [f"others {100 * others[metric]:.1f}"] if others else []
        scores.append(f"{name} {', '.join(figures)}")
    return f"{directory}: {'; '.join(scores)} ({time.monotonic() - began:.0f} s)"


def _is_done(directory: Path, config: RunConfig, evaluation: Evaluation) -> bool:
    """Whether the run is trained and its report has all rows of the evaluation."""
    if not (directory / RUN_FILE).is_file() or not (directory / "report.json").is_file():
        return False
    run_json = read_run(directory)
    if not run_json["finished"] or run_json["config"]["steps"] != config.steps:
        return False
    tasks = read_report(directory)["tasks"]
    for name in names(evaluation.task or ""):
        size = len(TASKS[name].load("en", TASKS[name].split, None))
        codes = names(evaluation.languages) if evaluation.languages else TASKS[name].languages
        answered = tasks[name]["languages"] if name in tasks else {}
        if any(code not in answered or answered[code]["n"] < min(evaluation.limit or size, size) for code in codes):
            return False
    return True


def _figures(reports: Sequence[TaskReport]) -> Figures:
    figures: Figures = {}
    for report in reports:
        metric, others = report["metrics"][0], others_of(report)
        scores = {code: result[metric] for code, result in report["languages"].items()}
        row = {"en": report["source"][metric]} if report["source"] else {}
        row |= {"others": mean(scores[code] for code in others)} if others else {}
        row |= {"gap": row["en"] - row["others"]} if len(row) == 2 else {}
        classes = grouped(others, resource)
        for level in sorted(classes, reverse=True):
            row[f"class {level}"] = mean(scores[code] for code in classes[level])
        for name, value in row.items():
            figures.setdefault(name, []).append(value)
    return figures


def _write(output: Path, results: Mapping[str, Mapping[str, Figures]], seeds: int) -> None:
    """Prints the tables, and writes study.json, study.md and study.png."""
    spread = f", mean ± standard deviation of {seeds} seeds" if seeds > 1 else ""
    titled = {}
    for task, methods in results.items():
        title = f"{task}: {TASKS[task].metrics[0]} in percent{spread}"
        titled[f"{title}; a guess scores {100 * CHANCE[task]:.0f}" if task in CHANCE else title] = _cells(methods)
    for title, cells in titled.items():
        Console().print(fitted(title, cells))
    values: dict[str, Any] = {"tasks": results, "chance": CHANCE}
    write_atomically(output / "study.json", json_text(values).encode())
    write_atomically(output / "study.md", tables(titled).encode())
    draw(results, CHANCE, output / "study.png")
    print(f"tables: {output / 'study.md'} · picture: {output / 'study.png'}")


def _cells(methods: Mapping[str, Figures]) -> Cells:
    columns = next(iter(methods.values()))
    lines = [
        [method, *(_format(values, name == "gap") for name, values in row.items())] for method, row in methods.items()
    ]
    return Cells(["method", *columns], [lines])


def _format(values: Sequence[float], signed: bool) -> str:
    text = f"{100 * fmean(values):{'+' if signed else ''}.1f}"
    return text if len(set(values)) == 1 else f"{text} ± {100 * stdev(values):.1f}"
