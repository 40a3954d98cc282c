"""Asks what has no answer yet, in batches that are planned beforehand, and keeps every answer as it comes.

An evaluation plans its batches over all the questions that no other evaluation has answered. What it has itself
answered before an interruption stays in the plan, so that a second run has the same batches. A part of the plan in
which an answer is missing is asked whole: the answers are those of an uninterrupted evaluation, bit for bit.
"""

from collections.abc import Mapping, Sequence

from jaxprefix.evaluation.predictions import EVALUATION, Predictions, digest
from jaxprefix.evaluation.questions import Question, predict
from jaxprefix.inference.batching import plan_buckets
from jaxprefix.inference.model import Model
from jaxprefix.io.terminal import progress
from jaxprefix.models.sampling import Sampling
from jaxprefix.tasks.task import Task

Asked = Mapping[str, tuple[Task, Sequence[Question]]]  # by the task's name


def answer(model: Model, asked: Asked, runs: Sequence[Predictions], size: int, sampling: Sampling, quiet: bool) -> None:
    """Appends what is missing to the predictions of the runs, which are the model's adapters in their order.

    An answer that is there is never replaced.
    """
    name = _name(model, asked, runs, size)
    for task, questions in asked.values():
        own = {question.key: question for question in questions}.values()  # each once
        rows = [
            question.of(adapter)
            for adapter, run in enumerate(runs)
            for question in own
            if question.key not in run.rows or run.rows[question.key].get(EVALUATION) == name
        ]
        _ask(model, task, rows, runs, name, size, sampling, quiet)


def _name(model: Model, asked: Asked, runs: Sequence[Predictions], size: int) -> str:
    """Of this evaluation; equal where the same runs are asked the same in batches of the same size."""
    keys = [question.key for _, questions in asked.values() for question in questions]
    return digest([keys, [run.origin for run in runs], size, dict(model.mesh.shape)])


def _ask(
    model: Model,
    task: Task,
    rows: Sequence[Question],
    runs: Sequence[Predictions],
    name: str,
    size: int,
    sampling: Sampling,
    quiet: bool,
) -> None:
    """Asks the parts of the plan for `rows` in which an answer is missing."""

    def missing(place: int) -> bool:
        return rows[place].key not in runs[rows[place].asked.adapter].rows

    parts = [part for part in plan_buckets([row.asked for row in rows], size) if any(map(missing, part.indices))]
    if not parts:
        return
    done = len(rows) - sum(len(part.indices) for part in parts)
    with progress(quiet) as bar:
        shown = bar.add_task(task.name, total=len(rows), completed=done, rate="rows")
        for answered in predict(model, task, rows, size, sampling, parts):
            new = [(rows[place].asked.adapter, row) for place, row in answered if missing(place)]
            for adapter, run in enumerate(runs):
                run.append([row | run.origin | {EVALUATION: name} for own, row in new if own == adapter])
            bar.update(shown, advance=len(answered))
