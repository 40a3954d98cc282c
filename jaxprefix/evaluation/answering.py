"""Answers the questions that have no answer yet, in batches planned in advance, and saves each answer as it arrives.

An evaluation plans its batches over all questions that no other evaluation has answered. The plan includes what it has
answered itself before an interruption, so that a resumed evaluation has the same batches. A bucket with a missing
answer is computed as a whole: the answers equal those of an uninterrupted evaluation, bit for bit.
"""

from collections.abc import Mapping, Sequence

from jaxprefix.distributed import processes
from jaxprefix.evaluation.predictions import EVALUATION, Predictions, digest
from jaxprefix.evaluation.questions import Question, predict
from jaxprefix.inference.batching import plan_buckets
from jaxprefix.inference.model import Model
from jaxprefix.io.terminal import progress
from jaxprefix.models.sampling import Sampling
from jaxprefix.tasks.task import Task

TaskQuestions = Mapping[str, tuple[Task, Sequence[Question]]]  # by the task's name


def answer(
    model: Model,
    task_questions: TaskQuestions,
    runs: Sequence[Predictions],
    batch_size: int,
    sampling: Sampling,
    quiet: bool,
) -> None:
    """Appends the missing answers to the predictions of the runs, which are in the order of the model's adapters.

    An existing answer is never replaced.
    """
    evaluation = _evaluation_hash(model, task_questions, runs, batch_size)
    answered = [sorted(run.rows) for run in runs]
    processes.check_same(digest([evaluation, answered]), "the questions, settings or earlier answers")
    for task, questions in task_questions.values():
        distinct = {question.key: question for question in questions}.values()
        rows = [
            question.for_adapter(adapter)
            for adapter, run in enumerate(runs)
            for question in distinct
            if question.key not in run.rows or run.rows[question.key].get(EVALUATION) == evaluation
        ]
        _answer_task(model, task, rows, runs, evaluation, batch_size, sampling, quiet)


def _evaluation_hash(model: Model, task_questions: TaskQuestions, runs: Sequence[Predictions], batch_size: int) -> str:
    """Identifies this evaluation: the same runs, questions, batch size and mesh give the same hash."""
    keys = [question.key for _, questions in task_questions.values() for question in questions]
    return digest([keys, [run.origin for run in runs], batch_size, dict(model.mesh.shape)])


def _answer_task(
    model: Model,
    task: Task,
    rows: Sequence[Question],
    runs: Sequence[Predictions],
    evaluation: str,
    batch_size: int,
    sampling: Sampling,
    quiet: bool,
) -> None:
    """Computes the buckets of `rows` in which an answer is missing."""

    def missing(index: int) -> bool:
        return rows[index].key not in runs[rows[index].request.adapter].rows

    planned = plan_buckets([row.request for row in rows], batch_size)
    buckets = [bucket for bucket in planned if any(map(missing, bucket.indices))]
    if not buckets:
        return
    completed = len(rows) - sum(len(bucket.indices) for bucket in buckets)
    with progress(quiet) as bar:
        progress_task = bar.add_task(task.name, total=len(rows), completed=completed, rate="rows")
        for predicted in predict(model, task, rows, batch_size, sampling, buckets):
            new = [(rows[index].request.adapter, row) for index, row in predicted if missing(index)]
            for adapter, run in enumerate(runs):
                run.append([row | run.origin | {EVALUATION: evaluation} for owner, row in new if owner == adapter])
            bar.update(progress_task, advance=len(predicted))
