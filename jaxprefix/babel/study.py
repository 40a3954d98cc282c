"""python -m jaxprefix.babel study: methods on tasks of the embedded world, seed by seed, and what they come to.

Each run is an ordinary run directory; what is there already is not done again.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
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
"""What a guess scores; 0 where the answer is generated."""
BASE = "none"
LOG = "log.txt"  # what each run said

Figures = dict[str, list[float]]
"""Column -> the score of each seed, in 0..1: "en", "others", "gap", and "class 5" to "class 1"."""


@dataclass(frozen=True)
class Study:
    """Trains each method on each task in English and asks it in every language; run again to go on after a stop."""

    output: Path = Path("runs/study-babel")
    """Where the runs, the tables and the picture go."""
    methods: str = "prefix,llama-adapter,soft-prompt,lora,bottleneck,full"
    """Comma-separated; the frozen base is beside them always."""
    tasks: str = ",".join(TASKS)
    """Comma-separated."""
    seeds: str = "0"
    """Comma-separated; each method is trained with each."""
    steps: int | None = None
    """Of each run; left out, two passes over the English rows."""
    languages: str | None = None
    """Comma-separated codes; left out, all of the world."""
    limit: int | None = None
    """Questions a language."""


def study(settings: Study) -> dict[str, dict[str, Figures]]:
    """Prints a line a run and a table a task, writes study.json, .md and .png, and returns task -> method -> figures.

    InputError, in one line, for names that are unknown, and for runs of another model or with other settings.
    """
    methods, chosen, seeds = names(settings.methods), names(settings.tasks), names(settings.seeds)
    for name in chosen:
        if name not in TASKS:
            raise InputError(f"--tasks {name!r} is unknown; expected {', '.join(TASKS)}")
    for method in methods:
        parse_method(method)
    if not all(seed.isdecimal() for seed in seeds):
        raise InputError(f"--seeds {settings.seeds!r}; expected whole numbers, comma-separated, such as 0,1,2")
    asked = Evaluation(task=",".join(chosen), languages=settings.languages, limit=settings.limit, mesh="1x1")
    asked.check()
    RunConfig(steps=settings.steps).check()
    check_languages(BABEL_QA, names(settings.languages) if settings.languages else ())
    _check_output(settings.output)
    with exclusive(settings.output):
        runs = [(BASE, "", 0), *((m, t, int(s)) for t in chosen for m in methods if m != BASE for s in seeds)]
        for number, run in enumerate(runs, start=1):
            print(f"{number} of {len(runs)}: {_run(settings, asked, *run)}", flush=True)
        found = {
            task: {
                method: _figures([_task(settings.output, method, task, int(seed)) for seed in seeds])
                for method in (BASE, *(each for each in methods if each != BASE))
            }
            for task in chosen
        }
        _write(settings.output, found, len(seeds))
    return found


def _check_output(output: Path) -> None:
    """InputError where the study's files would stand among, or in the place of, somebody's."""
    if not (output / BASE / RUN_FILE).is_file() and entries(output) - {BASE, LOG}:
        raise InputError(f"--output {output} holds other files and no study; give a new directory")


def _place(output: Path, method: str, task: str, seed: int) -> Path:
    return output / BASE if method == BASE else output / task / f"{method}-{seed}"


def _task(output: Path, method: str, task: str, seed: int) -> TaskReport:
    return read_report(_place(output, method, task, seed))["tasks"][task]


def _run(settings: Study, asked: Evaluation, method: str, task: str, seed: int) -> str:
    """One run, trained and evaluated as far as it is not; in a line: what it came to, and the time that it took."""
    directory, began = _place(settings.output, method, task, seed), time.monotonic()
    wanted = task or asked.task
    evaluation = Evaluation(task=wanted, languages=asked.languages, limit=asked.limit, mesh=asked.mesh)
    config = RunConfig(method=method, task=task or BABEL_QA.name, seed=seed, steps=settings.steps, mesh="1x1")
    open_directory(directory, config, open_base(None).fingerprint)  # refuses a run of another model
    if _is_done(directory, config, evaluation):
        return f"{directory}: done before"
    with open(settings.output / LOG, "a", encoding="utf-8") as log, redirect_stdout(log):
        train(config, directory, quiet=True)
        report = evaluate(directory, evaluation, quiet=True)
    scores = []
    for name in names(wanted or ""):
        found = report["tasks"][name]
        metric, source, others = found["metrics"][0], found["source"], found["mean_others"]
        figures = [f"en {100 * source[metric]:.1f}"] if source else []
        figures += [f"others {100 * others[metric]:.1f}"] if others else []
        scores.append(f"{name} {', '.join(figures)}")
    return f"{directory}: {'; '.join(scores)} ({time.monotonic() - began:.0f} s)"


def _is_done(directory: Path, config: RunConfig, asked: Evaluation) -> bool:
    """Whether the run is finished and has answered all that is asked of it."""
    if not (directory / RUN_FILE).is_file() or not (directory / "report.json").is_file():
        return False
    described = read_run(directory)
    if not described["finished"] or described["config"]["steps"] != config.steps:
        return False
    tasks = read_report(directory)["tasks"]
    for name in names(asked.task or ""):
        size = len(TASKS[name].load("en", TASKS[name].split, None))
        codes = names(asked.languages) if asked.languages else TASKS[name].languages
        answered = tasks[name]["languages"] if name in tasks else {}
        if any(code not in answered or answered[code]["n"] < min(asked.limit or size, size) for code in codes):
            return False
    return True


def _figures(reports: Sequence[TaskReport]) -> Figures:
    found: Figures = {}
    for report in reports:
        metric, others = report["metrics"][0], others_of(report)
        scores = {code: each[metric] for code, each in report["languages"].items()}
        row = {"en": report["source"][metric]} if report["source"] else {}
        row |= {"others": mean(scores[code] for code in others)} if others else {}
        row |= {"gap": row["en"] - row["others"]} if len(row) == 2 else {}
        classes = grouped(others, resource)
        for level in sorted(classes, reverse=True):
            row[f"class {level}"] = mean(scores[code] for code in classes[level])
        for name, value in row.items():
            found.setdefault(name, []).append(value)
    return found


def _write(output: Path, found: Mapping[str, Mapping[str, Figures]], seeds: int) -> None:
    """Tables in the terminal, and study.json, study.md and study.png, replacing older ones."""
    spread = f", mean ± standard deviation of {seeds} seeds" if seeds > 1 else ""
    titled = {}
    for task, methods in found.items():
        title = f"{task}: {TASKS[task].metrics[0]} in percent{spread}"
        titled[f"{title}; a guess has {100 * CHANCE[task]:.0f}" if task in CHANCE else title] = _cells(methods)
    for title, cells in titled.items():
        Console().print(fitted(title, cells))
    values: dict[str, Any] = {"tasks": found, "chance": CHANCE}
    write_atomically(output / "study.json", json_text(values).encode())
    write_atomically(output / "study.md", tables(titled).encode())
    draw(found, CHANCE, output / "study.png")
    print(f"tables: {output / 'study.md'} · picture: {output / 'study.png'}")


def _cells(methods: Mapping[str, Figures]) -> Cells:
    columns = next(iter(methods.values()))
    lines = [
        [method, *(_shown(values, name == "gap") for name, values in row.items())] for method, row in methods.items()
    ]
    return Cells(["method", *columns], [lines])


def _shown(values: Sequence[float], signed: bool) -> str:
    text = f"{100 * fmean(values):{'+' if signed else ''}.1f}"
    return text if len(set(values)) == 1 else f"{text} ± {100 * stdev(values):.1f}"
