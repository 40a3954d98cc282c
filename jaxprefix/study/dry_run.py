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
from jaxprefix.train.dry_run.chips import CHIPS, GIB, Chip
from jaxprefix.train.dry_run.limits import SHARE, Work, least_time

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
    step: Work  # of training
    steps: float
    evaluation: Work

    def training_hours(self, chip: Chip) -> float:
        return self.steps * hours(chip, self.step)

    def hours(self, chip: Chip) -> float:
        return self.training_hours(chip) + hours(chip, self.evaluation)


def hours(chip: Chip, work: Work) -> float:
    """The hours at SHARE of the chip's rates."""
    return least_time(chip, work).seconds / SHARE / 3600


def dry_run(plan: Plan, chip: str, only: str | None = None) -> None:
    """Prints a line for each table and each of its methods and models, and the totals."""
    known, compiled = sizes(plan), dict[str, tuple[DecoderConfig, StepNeeds]]()
    console, total = Console(), dict[str, float]()  # run or cell -> hours
    for table in plan.tables(only):
        if table.kind == "parameters":
            continue
        lines: dict[tuple[str, str], list[Costs]] = {}
        of_table: dict[str, float] = {}
        for cell in (cell for row in plan.rows[table.name] for cell in row.cells):
            found = _costs(cell, known[model_label(cell.config.model)], compiled)
            found = replace(found, steps=0.0) if f"train {cell.run}" in of_table else found
            of_table |= {f"train {cell.run}": found.training_hours(CHIPS[chip])} if found.steps else {}
            of_table[cell.name] = hours(CHIPS[chip], found.evaluation)
            lines.setdefault((model_label(cell.config.model), cell.config.method), []).append(found)
        total |= of_table
        longest = f"at most {sum(of_table.values()):,.1f} hours on one {chip}"
        console.print(fitted(f"{table.name}: {longest}", _cells(lines, chip)))
    share = f"{SHARE:.0%} of the {CHIPS[chip].flops / 1e12:g} TFLOP/s of one {chip} (or of its memory's rate)"
    longest = f"at most {sum(total.values()):,.1f} hours at {share}"
    print(f"{len(plan.cells(only))} cells, {longest}; what tables share counts once")
    print("all rows and questions are counted at their longest; a choice by score adds its evaluations in one language")


def _costs(cell: Cell, known: DecoderConfig, compiled: dict[str, tuple[DecoderConfig, StepNeeds]]) -> Costs:
    """The needs of a cell: of its training, and of a forward pass over all its questions."""
    config = cell.config
    trainable, total = parameter_counts(known, config.adapter)
    tokens = sum(_questions(cell, name) for name in cell.tasks) * config.max_length
    forward = Work(2.0 * (total - trainable) * tokens, 0)
    weights = (1 if config.dtype == "int8" else 2) * total
    if config.method == "none":
        return Costs(0, weights, Work(0, 0), 0.0, forward)
    if config.method not in compiled:
        first = replace(config, mesh="1x1", dtype="bfloat16" if config.dtype == "auto" else config.dtype)
        compiled[config.method] = known, needs(first, known)
    reference, compiled_step = compiled[config.method]
    ratio = parameter_counts(known, config.adapter)[1] / parameter_counts(reference, config.adapter)[1]
    layers = known.layers * known.hidden_size / (reference.layers * reference.hidden_size)
    rows = config.batch // config.accumulate * config.max_length
    temporary = compiled_step.temporary / compiled_step.tokens * rows * layers
    state = 3 * 4 * trainable  # the adapter and two moments
    flops = compiled_step.flops / compiled_step.tokens * ratio * config.batch * config.max_length
    step = Work(flops, config.accumulate * compiled_step.weight_reads * ratio + 2 * state)
    steps = config.steps or _rows(config) / config.batch * (config.epochs or 2)
    return Costs(trainable, int(weights + state + temporary), step, steps, forward)


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
        longest = sum(cost.hours(CHIPS[chip]) for cost in costs)
        fits = "yes" if most <= CHIPS[chip].usable else "no"
        texts.append([model, method, str(len(costs)), trainable, f"{most / GIB:.1f}", fits, f"{longest:,.1f}"])
    return Cells(header, [texts])
