"""A trained run in, its zero-shot scores in many languages out: predictions, report and picture."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console

from jaxprefix import tasks
from jaxprefix.errors import InputError
from jaxprefix.evaluation import plots, report
from jaxprefix.evaluation.answering import answer
from jaxprefix.evaluation.predictions import SUPERSEDED, Answers, Predictions, description, origin, unanswered
from jaxprefix.evaluation.questions import Question, questions
from jaxprefix.evaluation.report.caveats import all_cautions, notes
from jaxprefix.evaluation.selection import Examples, select_examples, select_tasks
from jaxprefix.evaluation.settings import Evaluation
from jaxprefix.inference.model import Model, open_model
from jaxprefix.io.atomic import exclusive
from jaxprefix.runs.config import RunConfig
from jaxprefix.runs.directory import RUN_FILE, read_run
from jaxprefix.runs.saved import TrainedRun
from jaxprefix.tasks.task import Example, Task


def evaluate(directory: str | Path, settings: Evaluation, quiet: bool = False) -> report.Report:
    """Predicts, scores, writes predictions.jsonl, report.json, report.md and report.png, and prints the tables.

    What the run's adapter has answered before is not asked again, and is in the report as well.
    InputError for what the user can mend.
    """
    return evaluate_together([directory], settings, quiet)[0]


def evaluate_together(
    directories: Sequence[str | Path], settings: Evaluation, quiet: bool = False
) -> list[report.Report]:
    """`evaluate` of several runs of one base and one kind, whose rows share the frozen model's batches."""
    settings.check()
    directories = [Path(directory) for directory in directories]
    if settings.output and len(directories) > 1:
        raise InputError(f"--output {settings.output} is for one run, given {len(directories)}; leave it out")
    configs = [RunConfig.from_json(read_run(directory / RUN_FILE)["config"]) for directory in directories]
    chosen = select_tasks(configs, settings)
    baseline = settings.baseline and report.read_report(settings.baseline)
    # Rows are read before the model is loaded: what is missing is said at once.
    examples = select_examples(chosen, settings, configs[0])
    with ExitStack() as places:
        for directory in directories:
            places.enter_context(exclusive(settings.output or directory))
        return _evaluate(directories, settings, quiet, chosen, examples, baseline or None)


def _evaluate(
    directories: Sequence[Path],
    settings: Evaluation,
    quiet: bool,
    chosen: Sequence[Task],
    examples: Examples,
    baseline: report.Report | None,
) -> list[report.Report]:
    model, runs = open_model(directories, settings.mesh, settings.batch, settings.max_length)
    if settings.max_length and settings.max_length > (positions := model.base.config.max_positions):
        raise InputError(f"--max-length {settings.max_length} is beyond the model's {positions} positions; choose less")
    for directory, run in zip(directories, runs, strict=True):
        if not run.run_json["finished"]:
            steps = run.run_json["steps"]
            print(f"run {directory} is not finished: these are the scores of step {run.step} of {steps}")
    asked = {task.name: (task, _questions(model, task, examples)) for task in chosen}
    how = f"at most {model.max_length} tokens, {settings.sampling}"
    how += f", split {settings.split}" if settings.split else ""
    predictions = [
        Predictions(settings.output or directory, origin(run.run_json, run.step, how))
        for directory, run in zip(directories, runs, strict=True)
    ]
    answer(model, asked, predictions, settings.batch, settings.sampling, quiet)
    if model.compilations:
        print(f"compiled {model.compilations} shapes")
    file = _every_question(chosen[0]) if settings.eval_file else {}
    found = []
    for own, run in zip(predictions, runs, strict=True):
        now = [unanswered(task, example) | own.origin for task in chosen for example in _of(task, examples)]
        rows = _merged(own.rows, {row["key"]: row for row in now}, file)
        own.append([row for row in rows if row != own.rows.get(row["key"])])
        found.append(_report(own, run, [row for row in rows if SUPERSEDED not in row], chosen, baseline))
    return found


def _merged(held: Answers, now: Answers, file: Answers) -> list[dict[str, Any]]:
    """All rows, last those of the questions that are asked `now`, in their order and unanswered where none is held.

    What a task no longer asks is marked: questions whose ids now belong to others, and of a task that is a `file` those
    that are not in it.
    """
    ids, own = set(map(_id, now.values())), {row["task"] for row in file.values()}

    def superseded(row: dict[str, Any]) -> bool:
        return _id(row) in ids or (row["task"] in own and row["key"] not in file)

    others = [row for key, row in held.items() if key not in now]
    rows = [row | {SUPERSEDED: True} if superseded(row) else row for row in others]
    if count := sum(SUPERSEDED in row for row in rows):
        print(f"{count:,} earlier answers are of questions that are no longer asked: they are kept, and in no report")
    return rows + [
        {name: value for name, value in held.get(key, row).items() if name != SUPERSEDED} for key, row in now.items()
    ]


def _id(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return row["task"], row["language"], row["id"]


def _report(
    predictions: Predictions,
    run: TrainedRun,
    rows: Sequence[dict[str, Any]],
    chosen: Sequence[Task],
    baseline: report.Report | None,
) -> report.Report:
    """Writes and prints what these rows say of a run."""
    directory = predictions.directory
    known = {task.name: task for task in (*tasks.TASKS, *chosen)}
    found, statistics = build(run.config, run.run_json["source"], rows, known)
    report.write(found, notes(found, known, predictions.origin["how"], baseline), directory, baseline, statistics)
    drawn = plots.draw(found, statistics, directory, baseline)
    Console().print(*report.table(found, baseline, statistics))
    for line in all_cautions(found, baseline):
        print(line)
    print(f"report: {directory / 'report.md'} · pictures: {', '.join(map(str, drawn))} (and .svg)")
    return found


def build(
    config: RunConfig, source: str, rows: Sequence[dict[str, Any]], known: Mapping[str, Task]
) -> tuple[report.Report, report.Statistics]:
    """The report of these prediction rows and its intervals; `source` is the language that was trained."""
    summaries, measured = {}, {}
    for name in dict.fromkeys(row["task"] for row in rows):
        own = [row for row in rows if row["task"] == name]
        corpus = known[name].corpus_metrics if name in known else None
        summary = report.summarise(own, list(own[0]["scores"]), source, corpus)
        summaries[name] = summary
        measured[name] = report.measure(own, summary, whole=summary["metrics"] if corpus else ())
    return report.build(config.model or "embedded", config.method, source, summaries), report.build_statistics(measured)


def _questions(model: Model, task: Task, examples: Examples) -> list[Question]:
    """What can be asked of the task's examples; what cannot is counted in a line, and scores 0."""
    mine = _of(task, examples)
    if not mine:
        raise InputError(f"task {task.name}: no row has an answer; choose other rows, or another --split")
    asked = questions(model, task, mine)
    cut, long = sum(each.cut for each in asked), len(mine) - len(asked)
    if cut or long:
        print(f"{task.name}: {cut:,} contexts cut to fit, {long:,} questions too long for --max-length: they score 0")
    if not asked:
        raised = f"raise --max-length, to at most {model.base.config.max_positions}"
        raise InputError(
            f"task {task.name}: none of {len(mine):,} questions fits in {model.max_length} tokens; {raised}"
        )
    return asked


def _of(task: Task, examples: Examples) -> list[Example]:
    return [example for (name, _), part in examples.items() if name == task.name for example in part]


def _every_question(own: Task) -> Answers:
    """All that a file of rows asks, in all of its languages."""
    every = [own.example(row, language) for language in own.languages for row in own.load(language, own.split, None)]
    rows = [description(own, example) for example in every if example]
    return {row["key"]: row for row in rows}
