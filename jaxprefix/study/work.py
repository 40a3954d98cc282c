"""Trains and evaluates what a study lacks, in an order that keeps the base loaded and its programs compiled.

Several processes may work on one directory. Each cell is locked meanwhile, and a cell that another process has is tried
again later. A further stage of a cell is a value of `Stage`, a branch of `Worker._do` and a line of `units`.
"""

import time
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from typing import Literal

import jax

from jaxprefix import tasks
from jaxprefix.errors import InputError
from jaxprefix.evaluation.evaluate import evaluate
from jaxprefix.evaluation.report.files import read_report
from jaxprefix.evaluation.settings import Evaluation, names
from jaxprefix.io.atomic import RunLocked, disk_errors, lock
from jaxprefix.io.messages import one_line
from jaxprefix.io.terminal import Stopped, progress
from jaxprefix.probe.probe import probe
from jaxprefix.runs.config import RunConfig, model_label
from jaxprefix.runs.directory import open_directory
from jaxprefix.runs.loaded import Loaded
from jaxprefix.study.folder import WAIT, Folder, Stage
from jaxprefix.study.mechanism import figure_text, probe_figures
from jaxprefix.study.plan import Cell, Plan, Row
from jaxprefix.study.select import choose
from jaxprefix.tasks.languages import same_language
from jaxprefix.train.loop import train
from jaxprefix.train.signals import stoppable

LOG = "log.txt"  # the output of the runs
FAILURES = (InputError, MemoryError, jax.errors.JaxRuntimeError)  # of one cell; others are bugs, and end the study

AFTER_CHOICE = ("evaluate", "probe")  # the stages of the cells with the chosen learning rate

Outcome = Literal["done", "failed", "later"]


@dataclass(frozen=True)
class Unit:
    """One stage of a cell. Only cells with the learning rate that is chosen for their row are evaluated and probed."""

    cell: Cell
    stage: Stage
    row: Row

    def __str__(self) -> str:
        return f"{self.stage} {self.cell.name if self.stage == 'evaluate' else self.cell.run}"


def work(plan: Plan, folder: Folder, only: str | None = None, retry: bool = False, quiet: bool = False) -> None:
    """Does every unit that is not done. A failed cell is recorded, and is tried again only with `retry`.

    Raises:
        InputError: a directory holds another run, or the disk is full. What is done is kept.
        Stopped: a signal stopped the training; its state is saved.
    """
    loaded, total = Loaded(), len(units(plan, only))
    pending, worker = open_runs(plan, folder, only, retry, loaded), Worker(folder, loaded)
    with progress(quiet) as bar:
        task = bar.add_task("cells", total=total, completed=total - len(pending), rate="")
        while pending:
            later = []
            for unit in pending:
                began, outcome = time.monotonic(), worker.attempt(unit)
                if outcome == "later":
                    later.append(unit)
                    continue
                bar.update(task, advance=1)
                if outcome:
                    line = f"{bar.tasks[task].completed:g} of {total}: {unit}: {describe(unit, folder)}"
                    print(f"{line} ({time.monotonic() - began:.0f} s)", flush=True)
            if len(later) == len(pending):
                time.sleep(WAIT)
            pending = later


def open_runs(plan: Plan, folder: Folder, only: str | None, retry: bool, loaded: Loaded) -> list[Unit]:
    """The units that are not done. With `retry`, failures are forgotten. InputError if a directory has another run."""
    for cell in plan.cells(only):
        if (folder.run(cell)).is_dir():
            open_directory(folder.run(cell), folder.config(cell), loaded.base(cell.config.model).fingerprint)
        if retry:
            folder.forget_failure(cell)
    return [unit for unit in units(plan, only) if outcome_of(unit, folder) is None]


def units(plan: Plan, only: str | None) -> list[Unit]:
    """All units, model by model: first the training, so that one form of the weights is loaded at a time.

    Runs that share a compiled step come one after another.
    """
    rows = [row for table in plan.tables(only) if table.kind != "parameters" for row in plan.rows[table.name]]
    found: dict[tuple[str, Stage], Unit] = {}
    for model in dict.fromkeys(model_label(cell.config.model) for row in rows for cell in row.cells):
        own = [row for row in rows if model_label(next(row.cells).config.model) == model]
        pairs = [(cell, row) for row in own for cell in row.cells]
        order = {program: n for n, program in enumerate(dict.fromkeys(_program(cell.config) for cell, _ in pairs))}
        for cell, row in sorted(pairs, key=lambda pair: (order[_program(pair[0].config)], pair[0].config.seed)):
            found.setdefault((cell.run, "train"), Unit(cell, "train", row))
        for cell, row in pairs:
            if row.select == "score" and len(row.candidates) > 1:
                found.setdefault((cell.run, "select"), Unit(cell, "select", row))
        for cell, row in pairs:
            # A cell of two rows may be chosen in one and not in the other.
            key = f"{cell.name} {id(row)}" if row.select else cell.name
            found.setdefault((key, "evaluate"), Unit(cell, "evaluate", row))
        for cell, row in pairs:
            if cell.probe:
                key = f"{cell.run} {id(row)}" if row.select else cell.run
                found.setdefault((key, "probe"), Unit(cell, "probe", row))
    return list(found.values())


def _program(config: RunConfig) -> str:
    """Equal for runs that share a compiled step."""
    return repr(replace(config, seed=0, lr=None))


def outcome_of(unit: Unit, folder: Folder) -> Outcome | None:
    """What became of a unit; None if it is to be done."""
    cell = unit.cell
    if folder.failure(cell, unit.stage):
        return "failed"
    if unit.stage == "train":
        return "done" if folder.is_trained(cell) else None
    if unit.stage in AFTER_CHOICE and (choice := choose(unit.row, folder)) and cell not in choice.cells:
        return "done"  # there is nothing to do
    return "done" if folder.state(cell, unit.stage) is not None else None


def describe(unit: Unit, folder: Folder) -> str:
    """The result of a unit in a few words."""
    cell = unit.cell
    if failure := folder.failure(cell, unit.stage):
        return f"failed: {failure}"
    if unit.stage == "train":
        return f"{cell.config.method}, learning rate {cell.config.lr or 'by default'}, seed {cell.config.seed}"
    if unit.stage == "probe":
        figures = probe_figures([folder.probes(cell)], {})
        return ", ".join(f"{name} {figure_text(values['mean'])}" for name, values in figures.items())
    report = read_report(folder.evaluation(cell, unit.stage))
    scores = []
    for name, task in report["tasks"].items():
        metric, parts = task["metrics"][0], (("source", task["source"]), ("others", task["mean_others"]))
        scores.append(f"{name} " + ", ".join(f"{what} {100 * part[metric]:.1f}" for what, part in parts if part))
    return "; ".join(scores)


def _line(error: BaseException) -> str:
    """The whole message of a mistake of the user; the first line of a library's."""
    return " ".join(str(error).split()) if isinstance(error, InputError) else one_line(error)


class Worker:
    """Does units one after another, with what the last one has loaded."""

    def __init__(self, folder: Folder, loaded: Loaded) -> None:
        self._folder, self._loaded = folder, loaded

    def attempt(self, unit: Unit) -> Outcome | None:
        """Does a unit if it can be done now; None if it is done already."""
        if outcome_of(unit, self._folder):
            return None
        cell, stage = unit.cell, unit.stage
        if stage != "train" and not self._folder.is_trained(cell):
            return "later"
        if stage in AFTER_CHOICE and choose(unit.row, self._folder) is None:
            return "later"
        try:
            with lock(self._folder.lock(cell), f"another process has {cell.run}"):
                return None if outcome_of(unit, self._folder) else self._do(cell, stage)
        except RunLocked:
            return "later"

    def _do(self, cell: Cell, stage: Stage) -> Outcome:
        folder = self._folder
        try:
            with disk_errors(folder.root), (folder.root / LOG).open("a", encoding="utf-8") as log, redirect_stdout(log):
                if stage == "train":
                    with stoppable() as stop:
                        train(folder.config(cell), folder.run(cell), quiet=True, stop=stop, loaded=self._loaded)
                        if stop.asked:
                            line = f"stopped by {stop.asked.name} after {cell.run}; repeat the command to resume"
                            raise Stopped(line, stop.asked)
                elif stage == "probe":
                    folder.write_state(cell, stage, self._probe(cell))
                else:
                    folder.write_state(cell, stage, self._evaluate(cell, stage))
        except RunLocked:
            raise
        except FAILURES as error:
            if isinstance(error.__cause__, OSError):  # a full disk is not the fault of this cell
                raise
            folder.write_state(cell, stage, {"failed": folder.without_paths(_line(error))})
            return "failed"
        return "done"

    def _evaluate(self, cell: Cell, stage: Stage) -> dict[str, dict]:
        """Evaluates a cell task by task, and returns the languages that it has and those that are missing."""
        folder, settings = self._folder, cell.evaluation
        if stage == "select":
            settings = replace(settings, languages=cell.config.language or "en")
        state: dict[str, dict] = {"languages": {}, "missing": {}}
        directory = folder.evaluation(cell, stage)
        for name in [None] if settings.eval_file else names(settings.task or ""):
            one = replace(settings, task=name, mesh=folder.mesh, platform=folder.platform, data=folder.data)
            one = replace(one, output=None if directory == folder.run(cell) else directory)
            if name is not None:
                codes, missing = languages(one, name)
                state["languages"][name] = codes
                state["missing"][name] = {code: folder.without_paths(why) for code, why in missing.items()}
                one = replace(one, languages=",".join(codes))
            evaluate(folder.run(cell), one, quiet=True, loaded=self._loaded)
        return state

    def _probe(self, cell: Cell) -> dict[str, list[str]]:
        """Probes the run of a cell, and returns the languages of the texts."""
        folder = self._folder
        assert cell.probe is not None
        settings = replace(cell.probe, mesh=folder.mesh, platform=folder.platform, data=folder.data)
        result = probe([folder.run(cell)], settings, quiet=True, loaded=self._loaded)
        return {"languages": result["texts"]["languages"]}


def languages(settings: Evaluation, name: str) -> tuple[list[str], dict[str, str]]:
    """The languages of a task that are evaluated, and those that cannot be, each with the reason.

    InputError if none can be.
    """
    task = tasks.find(name)
    codes, missing = list[str](), dict[str, str]()
    for asked in names(settings.languages) if settings.languages else task.languages:
        code = next((code for code in task.languages if same_language(code, asked)), None)
        if code is None:
            missing[asked] = f"{name} does not have it"
            continue
        try:
            task.load(code, settings.split or task.split, settings.data)
            codes.append(code)
        except InputError as error:
            missing[code] = one_line(error)
    if not codes:
        raise InputError(f"no language of {name} can be evaluated: {next(iter(missing.values()))}")
    return codes, missing
