"""--dry-run: the cells, parameters, memory and hours of each table, from the config.json of each model.

One step is compiled for each method, on its first model. Other cells follow from it by formula: FLOPs and temporary
bytes are proportional to those of the frozen weights. All rows are counted at their longest, so hours are upper bounds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from rich.console import Console

from jaxprefix import tasks
from jaxprefix.evaluation.report.cells import Cells
from jaxprefix.evaluation.report.terminal import fitted
from jaxprefix.evaluation.settings import names
from jaxprefix.models.config import DecoderConfig
from jaxprefix.runs.base_model import EMBEDDED_TASK, parameter_counts
from jaxprefix.runs.config import RunConfig, model_label
from jaxprefix.study.plan import Cell, Plan
from jaxprefix.study.report import sizes
from jaxprefix.train.dry_run import StepNeeds, needs
from jaxprefix.train.dry_run.chips import CHIPS, GIB

# The makers' figures: FLOPs per second of dense products in bfloat16.
RATES = {
    "v4": 275e12,
    "v5e": 197e12,
    "v5p": 459e12,
    "v6e": 918e12,
    "A100-40": 312e12,
    "A100-80": 312e12,
    "H100": 989e12,
    "H200": 989e12,
}
SHARE = 0.3  # of that rate, which training is assumed to reach
# Training rows, and questions per language, of the data sets that are published.
ROWS = {"squad": 87_599, "mnli": 392_702, "belebele-mix": 67_500, "gsm8k": 7_473, "tydiqa": 3_696, "xnli": 392_702}
ROWS |= {"babel-qa": 4_000, "babel-nli": 4_000, "babel-choice": 4_000, "babel-math": 4_000, "xcopa": 100}
QUESTIONS = {"xquad": 1_190, "xnli": 5_010, "belebele": 900, "mgsm": 250, "xcopa": 500}
QUESTIONS |= dict.fromkeys(("babel-qa", "babel-nli", "babel-choice", "babel-math"), 100)
UNKNOWN = 10_000  # of either, for other data


@dataclass(frozen=True)
class Costs:
    """What a cell needs on one chip."""

    trainable: int
    bytes: int
    training: float  # FLOPs
    evaluation: float  # FLOPs


def dry_run(plan: Plan, chip: str, only: str | None = None) -> None:
    """Prints a line for each table and each of its methods and models, and the totals."""
    known, compiled = sizes(plan), dict[str, tuple[DecoderConfig, StepNeeds]]()
    console, total = Console(), dict[str, float]()  # run or cell -> FLOPs
    per_hour = RATES[chip] * SHARE * 3600
    for table in plan.tables(only):
        if table.kind == "parameters":
            continue
        lines: dict[tuple[str, str], list[Costs]] = {}
        flops: dict[str, float] = {}
        for cell in (cell for row in plan.rows[table.name] for cell in row.cells):
            found = _costs(cell, known[model_label(cell.config.model)], compiled)
            found = replace(found, training=0.0) if f"train {cell.run}" in flops else found
            flops |= {f"train {cell.run}": found.training} if found.training else {}
            flops[cell.name] = found.evaluation
            lines.setdefault((model_label(cell.config.model), cell.config.method), []).append(found)
        total |= flops
        hours = sum(flops.values()) / per_hour
        console.print(fitted(f"{table.name}: at most {hours:,.1f} hours on one {chip}", _cells(lines, chip)))
    share = f"{SHARE:.0%} of the {RATES[chip] / 1e12:g} TFLOP/s of one {chip}"
    hours = sum(total.values()) / per_hour
    print(f"{len(plan.cells(only))} cells, at most {hours:,.1f} hours at {share}; what tables share counts once")
    print("all rows and questions are counted at their longest; a choice by score adds its evaluations in one language")


def _costs(cell: Cell, known: DecoderConfig, compiled: dict[str, tuple[DecoderConfig, StepNeeds]]) -> Costs:
    """The needs of a cell: of its training, and of a forward pass over all its questions."""
    config = cell.config
    trainable, total = parameter_counts(known, config.adapter)
    tokens = sum(_questions(cell, name) for name in cell.tasks) * config.max_length
    forward = 2.0 * (total - trainable) * tokens
    weights = (1 if config.dtype == "int8" else 2) * total
    if config.method == "none":
        return Costs(0, weights, 0.0, forward)
    if config.method not in compiled:
        first = replace(config, mesh="1x1", dtype="bfloat16" if config.dtype == "auto" else config.dtype)
        compiled[config.method] = known, needs(first, known)
    reference, step = compiled[config.method]
    ratio = parameter_counts(known, config.adapter)[1] / parameter_counts(reference, config.adapter)[1]
    layers = known.layers * known.hidden_size / (reference.layers * reference.hidden_size)
    rows = config.batch // config.accumulate * config.max_length
    temporary = step.temporary / step.tokens * rows * layers
    steps = config.steps or _rows(config) / config.batch * (config.epochs or 2)
    training = step.flops / step.tokens * ratio * steps * config.batch * config.max_length
    return Costs(trainable, int(weights + 3 * 4 * trainable + temporary), training, forward)


def _rows(config: RunConfig) -> int:
    rows = UNKNOWN if config.train_file else ROWS.get(config.task or EMBEDDED_TASK, UNKNOWN)
    return min(rows, config.limit or rows)


def _questions(cell: Cell, name: str) -> int:
    """The questions of a task in all its languages."""
    settings = cell.evaluation
    count = QUESTIONS.get(name, UNKNOWN)
    if settings.languages:
        languages = len(names(settings.languages))
    else:
        languages = len(tasks.find(name).languages) if name in tasks.names() else 1
    return languages * min(count, settings.limit or count)


def _cells(lines: Mapping[tuple[str, str], list[Costs]], chip: str) -> Cells:
    header = ["model", "method", "cells", "trainable", "memory, GiB", f"fits {chip}", "hours"]
    texts: list[list[str]] = []
    for (model, method), costs in lines.items():
        parameters = sorted({cost.trainable for cost in costs})
        trainable = f"{parameters[0]:,}" + (f" to {parameters[-1]:,}" if len(parameters) > 1 else "")
        most = max(cost.bytes for cost in costs)
        hours = sum(cost.training + cost.evaluation for cost in costs) / RATES[chip] / SHARE / 3600
        fits = "yes" if most <= CHIPS[chip].usable else "no"
        texts.append([model, method, str(len(costs)), trainable, f"{most / GIB:.1f}", fits, f"{hours:,.1f}"])
    return Cells(header, [texts])
