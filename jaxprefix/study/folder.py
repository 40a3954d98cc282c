"""The directory of a study: the runs, and for each cell what was evaluated or why it failed."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from jaxprefix.errors import InputError
from jaxprefix.evaluation.report.files import json_text, read_report
from jaxprefix.evaluation.report.summary import mean
from jaxprefix.io.atomic import LOCK, RunLocked, check_writable, entries, lock, write_atomically
from jaxprefix.io.messages import short_repr
from jaxprefix.probe.probe import FILE as PROBES
from jaxprefix.runs.config import RunConfig, model_label
from jaxprefix.runs.directory import RUN_FILE, read_run
from jaxprefix.study.plan import Cell, Plan
from jaxprefix.study.specification import Specification
from jaxprefix.train import metrics

Platform = Literal["cpu", "cuda", "tpu"]
Stage = Literal["train", "select", "evaluate", "probe"]
SPECIFICATION = "specification.json"
WAIT = 0.5  # seconds until a lock of another process is tried again
SELECTION = "selection"  # in a run: its scores in the training language
STATES = "cells"  # what became of each cell


class Folder:
    """A study's directory. `data`, `mesh` and `platform` are those of this machine."""

    def __init__(
        self,
        root: Path,
        data: Path | None = None,
        mesh: str | None = None,
        platform: Platform | None = None,
    ) -> None:
        self.root, self.data, self.mesh, self.platform = root, data, mesh, platform

    def open(self, plan: Plan) -> None:
        """Makes the directory if necessary. InputError if it has another study, or files that are not the plan's runs.

        The commands of --list make the runs of a plan without a study.
        """
        check_writable(self.root)
        with self.alone():
            self._open(plan)

    def _open(self, plan: Plan) -> None:
        path, values = self.root / SPECIFICATION, as_json(plan.specification)
        if not path.is_file():
            if entries(self.root) - {cell.run for cell in plan.cells()}:
                raise InputError(f"--output {self.root} holds other files and is not a study; give a new directory")
            write_atomically(path, json_text(values).encode())
        elif difference := first_difference(json.loads(path.read_text(encoding="utf-8")), values):
            raise InputError(f"--output {self.root} holds another study: {difference}; give a new directory")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Waits until no other process writes the files of the whole study."""
        with ExitStack() as stack:
            while True:
                try:
                    stack.enter_context(lock(self.root / f"{LOCK}-study", "another process writes the tables"))
                    break
                except RunLocked:
                    time.sleep(WAIT)
            yield

    def config(self, cell: Cell) -> RunConfig:
        """The cell's configuration on this machine."""
        return replace(cell.config, data=self.data, mesh=self.mesh, platform=self.platform)

    def run(self, cell: Cell) -> Path:
        """The directory of the cell's run."""
        return self.root / cell.run

    def evaluation(self, cell: Cell, stage: Stage = "evaluate") -> Path:
        """The directory with the predictions and the report of a stage."""
        return self.run(cell) / SELECTION if stage == "select" else self.root / cell.name

    def lock(self, cell: Cell) -> Path:
        return self.root / STATES / f"{LOCK}-{cell.run}"

    def is_trained(self, cell: Cell) -> bool:
        run = self.run(cell)
        return (run / RUN_FILE).is_file() and read_run(run)["finished"]

    def state(self, cell: Cell, stage: Stage) -> dict[str, Any] | None:
        """{"failed": line}, or of a done stage {"languages", "missing"}; None if the stage is not done."""
        path = self._state_path(cell, stage)
        if path.is_file():
            return json.loads(path.read_text(encoding="utf-8"))
        return {} if stage == "train" and self.is_trained(cell) else None

    def failure(self, cell: Cell, stage: Stage | None = None) -> str | None:
        """Why this stage of the cell, or its training, failed, in one line. None is the evaluation and the probe."""
        stages: tuple[Stage, ...] = ("train", stage) if stage else ("train", "evaluate", "probe")
        states = (self.state(cell, name) or {} for name in stages)
        return next((state["failed"] for state in states if "failed" in state), None)

    def write_state(self, cell: Cell, stage: Stage, state: Mapping[str, Any]) -> None:
        write_atomically(self._state_path(cell, stage), json_text(state).encode())

    def forget_failure(self, cell: Cell) -> None:
        """Lets a failed cell run again."""
        for stage in ("train", "select", "evaluate", "probe"):
            if "failed" in (self.state(cell, stage) or {}):
                self._state_path(cell, stage).unlink()

    def held_out_loss(self, cell: Cell) -> float:
        """The loss after the last step. InputError if the run has no held-out rows."""
        losses = [row["held_out_loss"] for row in metrics.read(self.run(cell)) if "held_out_loss" in row]
        if not losses:
            raise InputError(f"{self.run(cell)} has no held-out loss to select by; raise held_out, or select by score")
        return losses[-1]

    def source_score(self, cell: Cell) -> float:
        """The mean of its tasks' main scores in the training language, which its selection has evaluated."""
        reports = read_report(self.evaluation(cell, "select"))["tasks"].values()
        return mean(report["source"][report["metrics"][0]] for report in reports if report["source"])

    def statistics(self, cell: Cell) -> dict[str, Any]:
        """The cell's statistics.json."""
        return json.loads((self.evaluation(cell) / "statistics.json").read_text(encoding="utf-8"))

    def is_probed(self, cell: Cell) -> bool:
        return self.state(cell, "probe") is not None and not self.failure(cell, "probe")

    def probes(self, cell: Cell) -> dict[str, Any]:
        """The cell's probes.json."""
        return json.loads((self.run(cell) / PROBES).read_text(encoding="utf-8"))

    def without_paths(self, line: str) -> str:
        """A message without the directories of this machine, so that equal studies have equal files."""
        for path, name in ((self.root, "STUDY"), (self.data, "DATA")):
            for text in {str(path), str(path.resolve())} if path else ():
                line = line.replace(text, name)
        return line

    def _state_path(self, cell: Cell, stage: Stage) -> Path:
        name = cell.name.replace("/", "-") if stage == "evaluate" else cell.run
        return self.root / STATES / f"{name}.{stage}.json"


def as_json(specification: Specification) -> dict[str, Any]:
    """The specification in JSON values, with models by their names alone."""

    def axes(values: Mapping[str, tuple[Any, ...]]) -> dict[str, list[Any]]:
        return {name: [model_label(v) if name == "model" else v for v in value] for name, value in values.items()}

    tables = []
    for table in specification.tables:
        values = {name: value for name, value in vars(table).items() if name not in ("known", "grids")}
        values["known"] = [dict(vars(known)) for known in table.known]
        values["grids"] = [
            {"run": axes(grid.run), "evaluation": axes(grid.evaluation)}
            | ({"probe": dict(grid.probe)} if grid.probe else {})
            for grid in table.grids
        ]
        tables.append(values)
    return {"name": specification.name, "about": specification.about, "tables": tables}


def first_difference(old: Any, new: Any, where: str = "") -> str | None:
    """The first value in which two JSON values differ, in words."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(set(old) | set(new)):
            inner = f"{where}.{name}" if where else name
            if found := first_difference(old.get(name), new.get(name), inner):
                return found
        return None
    nested = isinstance(old, list) and isinstance(new, list) and len(old) == len(new)
    if nested and all(isinstance(value, dict) for value in (*old, *new)):
        found = (first_difference(*pair, f"{where}[{index}]") for index, pair in enumerate(zip(old, new, strict=True)))
        return next(filter(None, found), None)
    return None if old == new else f"its {where} is {short_repr(old)}, given {short_repr(new)}"
