"""study.json: every figure of a study, without times and paths, so that equal studies are equal files."""

import hashlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from jaxprefix import tasks
from jaxprefix.errors import InputError
from jaxprefix.evaluation import statistics
from jaxprefix.evaluation.figures import Figures, averaged, correct, difference_of, figures_of
from jaxprefix.evaluation.predictions import read_answered
from jaxprefix.evaluation.report.files import read_report
from jaxprefix.evaluation.settings import names
from jaxprefix.runs.directory import read_run
from jaxprefix.study.folder import Folder, as_json
from jaxprefix.study.mechanism import ProbeFigures, probe_figures
from jaxprefix.study.plan import Cell, Plan, Row, figure_settings, matches, named_settings
from jaxprefix.study.select import Choice, choose
from jaxprefix.study.specification import Table
from jaxprefix.tasks.languages import same_language


class RowResult(TypedDict):
    """A row of a table."""

    labels: dict[str, Any]
    cells: list[str]  # one for each seed
    seeds: list[int]
    rate: float | None  # the chosen learning rate
    tried: dict[str, float | None]  # learning rate -> what it was chosen by
    tasks: dict[str, Figures]
    probes: dict[str, ProbeFigures]  # such as "mexa score"; empty if the cells are not probed
    failed: str | None
    is_baseline: bool


def results(plan: Plan, folder: Folder) -> dict[str, Any]:
    """The content of study.json. Cells that are not done have no figures."""
    cells = plan.cells()
    runs = {cell.run: cell for cell in cells if folder.is_trained(cell)}
    described = {name: read_run(folder.run(cell)) for name, cell in runs.items()}
    return {
        "specification": as_json(plan.specification),
        "versions": next((run["versions"] for run in described.values()), {}),
        "models": {named_settings(cell.config)["model"]: described[name]["base"] for name, cell in runs.items()},
        "data": _data([cell for cell in cells if (folder.state(cell, "evaluate") or {}).get("languages")], folder),
        "cells": {cell.name: _cell(cell, described.get(cell.run), folder) for cell in cells},
        "tables": {
            table.name: {"rows": rows(table, plan.rows[table.name], folder)}
            for table in plan.specification.tables
            if table.kind != "parameters"
        },
        "confidence": statistics.CONFIDENCE,
        "resamples": statistics.RESAMPLES,
        "flips": statistics.FLIPS,
    }


def rows(table: Table, table_rows: Sequence[Row], folder: Folder) -> list[RowResult]:
    """The rows of a table with their figures, and their tests against the baseline with Holm's correction."""
    answers: list[dict[str, list[dict[str, Any]]]] = []
    found: list[RowResult] = []
    for row in table_rows:
        choice = choose(row, folder)
        result, answered = _row(table, row, choice, folder)
        found.append(result)
        answers.append(answered)
    if table.baseline is not None:
        _compare(table, table_rows, found, answers)
    return found


def _row(
    table: Table, row: Row, choice: Choice | None, folder: Folder
) -> tuple[RowResult, dict[str, list[dict[str, Any]]]]:
    cells = choice.cells if choice else ()
    failures = [line for cell in cells or row.cells if (line := folder.failure(cell))]
    result = RowResult(
        labels=dict(row.labels),
        cells=[cell.name for cell in cells],
        seeds=[cell.config.seed for cell in cells],
        rate=choice.rate if choice else None,
        tried={_rate_text(rate): value for rate, value in choice.tried.items()} if choice else {},
        tasks={},
        probes={},
        failed=failures[0] if failures else None,
        is_baseline=table.baseline is not None and matches(row, table.baseline),
    )
    answered: dict[str, list[dict[str, Any]]] = {}
    if cells and all((folder.state(cell, "evaluate") or {}).get("languages") is not None for cell in cells):
        directories = [folder.evaluation(cell) for cell in cells]
        reports = [read_report(directory) for directory in directories]
        for name in reports[0]["tasks"]:
            answered[name] = [row for row in averaged(directories, name) if _is_shown(row["language"], table)]
            if answered[name]:
                result["tasks"][name] = figures_of(name, answered[name], reports)
    if cells and all(cell.probe and folder.is_probed(cell) for cell in cells):
        result["probes"] = probe_figures([folder.probes(cell) for cell in cells], result["tasks"])
    return result, answered


def _compare(
    table: Table, table_rows: Sequence[Row], found: Sequence[RowResult], answers: Sequence[Mapping[str, Any]]
) -> None:
    """Adds each row's difference from the baseline that agrees with it in all other axes."""
    for row, result, answered in zip(table_rows, found, answers, strict=True):
        other = None if result["is_baseline"] else _baseline(table, row, table_rows)
        if other is None:
            continue
        for name, rows in answered.items():
            figures = result["tasks"][name]
            figures["against_baseline"] = difference_of(name, figures, rows, answers[other].get(name, ()))
    correct(result["tasks"] for result in found)


def _baseline(table: Table, row: Row, table_rows: Sequence[Row]) -> int | None:
    """The index of the row that has the baseline's settings, and agrees with this one in every other setting."""
    baseline = table.baseline or {}
    for index, other in enumerate(table_rows):
        shared = [name for name, value in other.labels.items() if name not in baseline and value is not None]
        if matches(other, baseline) and all(row.labels.get(name) in (other.labels[name], None) for name in shared):
            return index
    return None


def _cell(cell: Cell, run: Mapping[str, Any] | None, folder: Folder) -> dict[str, Any]:
    """The settings and figures of a cell."""
    state = folder.state(cell, "evaluate") or {}
    values: dict[str, Any] = {
        "run": named_settings(cell.config),
        "evaluation": figure_settings(cell.evaluation),
        "probe": cell.probe and figure_settings(cell.probe),
        "seed": cell.config.seed,
        "failed": folder.failure(cell),
        "missing": state.get("missing", {}),
        "tasks": {},
    }
    if run:
        losses = None if cell.config.method == "none" else _held_out_loss(cell, folder)
        values |= {"trainable_parameters": run["trainable_parameters"], "steps": run["steps"]}
        values |= {"held_out_loss": losses, "training_rows": run["rows"]}
    if "languages" in state:
        directory = folder.evaluation(cell)
        report, stats = read_report(directory), folder.statistics(cell)
        for name, task in report["tasks"].items():
            values["tasks"][name] = stats["tasks"][name] | {
                "n": {code: figures["n"] for code, figures in task["languages"].items()}
            }
    return values


def _held_out_loss(cell: Cell, folder: Folder) -> float | None:
    try:
        return folder.held_out_loss(cell)
    except InputError:
        return None


def _data(cells: Sequence[Cell], folder: Folder) -> dict[str, dict[str, str | None]]:
    """For each task a hash of its questions, whatever mirror they come from, and the pinned revision of the Hub."""
    keys: dict[str, set[str]] = {}
    for cell in cells:
        for key, row in read_answered(folder.evaluation(cell)).items():
            keys.setdefault(row["task"], set()).add(key)
    hashes = {task: hashlib.sha256("".join(sorted(found)).encode()).hexdigest()[:16] for task, found in keys.items()}
    return {task: {"questions": hashed, "revision": _revision(task)} for task, hashed in hashes.items()}


def _revision(task: str) -> str | None:
    """The constant REVISION of the task's file; None if it has none, as tasks without a data set on the Hub."""
    loader = tasks.find(task).load if task in tasks.names() else None
    return getattr(sys.modules[loader.__module__], "REVISION", None) if loader else None


def _is_shown(code: str, table: Table) -> bool:
    return table.languages is None or any(same_language(code, name) for name in names(table.languages))


def _rate_text(rate: float | None) -> str:
    return "default" if rate is None else f"{rate:g}"
