"""Evaluates trained runs in many languages: predictions, report and plots."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from jaxprefix import tasks
from jaxprefix.distributed import processes
from jaxprefix.errors import InputError
from jaxprefix.evaluation import plots, report
from jaxprefix.evaluation.answering import answer
from jaxprefix.evaluation.predictions import (
    SELECTION,
    SUPERSEDED,
    Answers,
    Predictions,
    description,
    origin,
    unanswered,
)
from jaxprefix.evaluation.questions import Question, judge, questions
from jaxprefix.evaluation.report.caveats import all_cautions, notes
from jaxprefix.evaluation.result import EvaluationResult
from jaxprefix.evaluation.selection import Examples, all_examples, select_examples, select_tasks
from jaxprefix.evaluation.settings import Evaluation
from jaxprefix.evaluation.shots import Shots, draw_shots
from jaxprefix.inference.model import Model, open_model
from jaxprefix.io.atomic import exclusive
from jaxprefix.runs.config import RunConfig, model_label
from jaxprefix.runs.directory import RUN_FILE, read_run
from jaxprefix.runs.loaded import Loaded
from jaxprefix.runs.saved import TrainedRun
from jaxprefix.tasks.task import Example, Task


def evaluate(
    directory: str | Path, settings: Evaluation, quiet: bool = False, loaded: Loaded | None = None
) -> report.Report:
    """Predicts, scores, writes predictions.jsonl, report.json, report.md and the plots, and prints the tables.

    Existing answers of the run's adapter are not computed again, and the report includes them. `loaded` has what
    earlier evaluations of this process have loaded. InputError for mistakes of the user.
    """
    return evaluate_together([directory], settings, quiet, loaded)[0]


def evaluate_together(
    directories: Sequence[str | Path], settings: Evaluation, quiet: bool = False, loaded: Loaded | None = None
) -> list[report.Report]:
    """As `evaluate`, for several runs of one base and one method. They share the batches of the frozen model."""
    settings.check()
    directories = [Path(directory) for directory in directories]
    if settings.output and len(directories) > 1:
        raise InputError(f"--output {settings.output} is for one run, given {len(directories)}; leave it out")
    runs = [read_run(directory / RUN_FILE) for directory in directories]
    # Examples are read before the model is loaded, so that a missing file is reported at once.
    configs = [RunConfig.from_json(run["config"]) for run in runs]
    selection = Selection.of(settings, configs, [run["source"] for run in runs])
    with ExitStack() as locks:
        for directory in directories:
            locks.enter_context(processes.enter_on_main(exclusive(settings.output or directory), None))
        return _evaluate(directories, settings, quiet, selection, loaded)


def evaluate_model(
    model: Model, config: RunConfig, source: str, settings: Evaluation, quiet: bool = False
) -> EvaluationResult:
    """As `evaluate`, for a model in memory with one adapter. It writes no file and prints no table.

    Args:
        config: the settings of the adapter, and its task.
        source: the language that the adapter was trained in.
    """
    settings.check()
    selection = Selection.of(settings, [config], [source])
    with TemporaryDirectory(prefix="jaxprefix-evaluation-") as folder:
        run = {"config": config.as_json(), "base": model.base.fingerprint, "rows": None}
        predictions = Predictions(Path(folder), origin(run, 0, _how(model, settings)))
        (rows,) = _answered(model, [predictions], selection, settings, quiet)
    result, statistics = build(config, source, rows, selection.known)
    return EvaluationResult(result, statistics, selection.baseline)


@dataclass(frozen=True)
class Selection:
    """The questions of an evaluation, and the baseline that its tables show."""

    tasks: Sequence[Task]
    examples: Examples
    shots: Shots
    baseline: report.Report | None

    @classmethod
    def of(cls, settings: Evaluation, configs: Sequence[RunConfig], sources: Sequence[str]) -> "Selection":
        selected = select_tasks(configs, settings)
        baseline = report.read_report(settings.baseline) if settings.baseline else None
        examples = select_examples(selected, settings, configs[0])
        return cls(selected, examples, draw_shots(selected, examples, settings, configs, sources), baseline)

    @property
    def known(self) -> Mapping[str, Task]:
        """The benchmarks, and the selected tasks, which may be the user's own."""
        return {task.name: task for task in (*tasks.TASKS, *self.tasks)}


def _evaluate(
    directories: Sequence[Path], settings: Evaluation, quiet: bool, selection: Selection, loaded: Loaded | None
) -> list[report.Report]:
    model, runs = open_model(directories, settings.mesh, settings.batch, settings.max_length, loaded)
    for directory, run in zip(directories, runs, strict=True):
        if not run.run_json["finished"]:
            steps = run.run_json["steps"]
            print(f"run {directory} is not finished: these are the scores of step {run.step} of {steps}")
    predictions = [
        Predictions(settings.output or directory, origin(run.run_json, run.step, _how(model, settings)))
        for directory, run in zip(directories, runs, strict=True)
    ]
    for run_predictions in predictions:
        _check_selection(run_predictions, selection, settings, runs[0].config)
    answered = _answered(model, predictions, selection, settings, quiet)
    return [_report(*of_run, selection) for of_run in zip(predictions, runs, answered, strict=True)]


def _how(model: Model, settings: Evaluation) -> str:
    """The settings that decide the answers. InputError for a length that the model has not."""
    if settings.max_length and settings.max_length > (positions := model.base.config.max_positions):
        raise InputError(f"--max-length {settings.max_length} is beyond the model's {positions} positions; choose less")
    return f"at most {model.max_length} tokens, {settings.how}"


def _answered(
    model: Model, predictions: Sequence[Predictions], selection: Selection, settings: Evaluation, quiet: bool
) -> list[list[dict[str, Any]]]:
    """Answers what is missing, and returns for each run the rows that its report counts."""
    selected, examples = selection.tasks, selection.examples
    task_questions = {task.name: (task, _questions(model, task, examples, selection.shots)) for task in selected}
    answer(model, task_questions, predictions, settings.batch, settings.sampling, quiet)
    if model.compilations:
        print(f"compiled {model.compilations} shapes")
    file_rows = _file_rows(selected[0]) if settings.eval_file else {}
    counted = []
    for run_predictions in predictions:
        cached, current, updated = run_predictions.rows, {}, {}
        for task in selected:
            for example in _examples_of(task, examples):
                row = unanswered(task, example) | run_predictions.origin
                current[row["key"]] = row
                updated |= _up_to_date(task, example, cached.get(row["key"]))
        rows = _merge(cached | updated, current, file_rows)
        run_predictions.append([row for row in rows if row != cached.get(row["key"])])
        counted.append([row for row in rows if SUPERSEDED not in row])
    return counted


def _check_selection(predictions: Predictions, selection: Selection, settings: Evaluation, config: RunConfig) -> None:
    """InputError if --limit would add to the first rows of a file, which earlier versions selected."""
    for task in selection.tasks if settings.limit else ():
        keys = {description(task, example)["key"] for example in _examples_of(task, selection.examples)}
        for language in (language for name, language in selection.examples if name == task.name):
            rows = predictions.of_language(task.name, language)
            others = [row for row in rows if SELECTION not in row and row["key"] not in keys]
            if others and len(rows) < len(all_examples(task, language, settings, config)):
                raise InputError(
                    f"{predictions.path} has answers to the first rows of {task.name} ({language}), and --limit now "
                    "selects rows that are spread over the file; give a new --output, or leave --limit out"
                )


def _up_to_date(task: Task, example: Example, row: dict[str, Any] | None) -> Answers:
    """The cached row of an example, by its key, scored by the current rules. Its text is not generated again."""
    if row is None:
        return {}
    row = row | description(task, example)
    if task.max_new_tokens and row.get("fit") != "none":
        row |= judge(task, example, row["prediction"])
    return {row["key"]: row}


def _merge(cached: Answers, current: Answers, file_rows: Answers) -> list[dict[str, Any]]:
    """All rows. The rows of the current questions come last, in their order, with the cached answer if there is one.

    Older rows are marked as superseded if a current question has their id, or if their task is the user's file and the
    file no longer contains them.
    """
    ids, file_tasks = set(map(_id, current.values())), {row["task"] for row in file_rows.values()}

    def superseded(row: dict[str, Any]) -> bool:
        return _id(row) in ids or (row["task"] in file_tasks and row["key"] not in file_rows)

    others = [row for key, row in cached.items() if key not in current]
    rows = [row | {SUPERSEDED: True} if superseded(row) else row for row in others]
    if count := sum(SUPERSEDED in row for row in rows):
        print(f"{count:,} earlier answers belong to questions that the task no longer has; the report excludes them")
    return rows + [
        {name: value for name, value in cached.get(key, row).items() if name != SUPERSEDED}
        for key, row in current.items()
    ]


def _id(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return row["task"], row["language"], row["id"]


def _report(
    predictions: Predictions, run: TrainedRun, rows: Sequence[dict[str, Any]], selection: Selection
) -> report.Report:
    """Writes and prints the report of these rows of a run. Of several processes, only the main one does."""
    directory, known, baseline = predictions.directory, selection.known, selection.baseline
    result, statistics = build(run.config, run.run_json["source"], rows, known)
    if not processes.is_main_process():
        return result
    report.write(result, notes(result, known, baseline), directory, baseline, statistics)
    pictures = plots.draw(result, statistics, directory, baseline)
    Console().print(*report.table(result, baseline, statistics))
    for name, task in statistics["tasks"].items():
        if sentence := report.resampling(task):
            print(f"{name}: {sentence}")
    for line in all_cautions(result, baseline):
        print(line)
    print(f"report: {directory / 'report.md'} · pictures: {', '.join(map(str, pictures))} (and .svg)")
    return result


def build(
    config: RunConfig, source: str, rows: Sequence[dict[str, Any]], known: Mapping[str, Task]
) -> tuple[report.Report, report.Statistics]:
    """The report of these prediction rows, and its intervals. `source` is the language of the training data."""
    summaries, measured = {}, {}
    for name in dict.fromkeys(row["task"] for row in rows):
        task_rows = [row for row in rows if row["task"] == name]
        corpus, cluster = (known[name].corpus_metrics, known[name].cluster) if name in known else (None, "question")
        summary = report.summarise(task_rows, list(task_rows[0]["scores"]), source, corpus)
        summaries[name] = summary
        measured[name] = report.measure(task_rows, summary, whole=summary["metrics"] if corpus else (), cluster=cluster)
    how = rows[0]["how"]  # the same in all rows
    result = report.build(model_label(config.model), config.method, source, summaries, how)
    return result, report.build_statistics(measured)


def _questions(model: Model, task: Task, examples: Examples, shots: Shots) -> list[Question]:
    """The questions of the task that fit. A line is printed for what is cut, dropped or left out."""
    task_examples = _examples_of(task, examples)
    if not task_examples:
        raise InputError(f"task {task.name}: no row has an answer; choose other rows, or another --split")
    fitting = questions(model, task, task_examples, shots)
    cut, too_long = sum(question.cut for question in fitting), len(task_examples) - len(fitting)
    if cut or too_long:
        print(f"{task.name}: {cut:,} contexts cut to fit; {too_long:,} questions exceed --max-length and score 0")
    if dropped := sum(question.shots_dropped for question in fitting):
        drawn = sum(len(question.shots) for question in fitting)
        print(f"{task.name}: {dropped:,} of {drawn:,} few-shot examples dropped to fit {model.max_length} tokens")
    if not fitting:
        limit, positions = model.max_length, model.base.config.max_positions
        raise InputError(
            f"task {task.name}: none of {len(task_examples):,} questions fits in {limit} tokens; "
            f"raise --max-length, to at most {positions}"
        )
    return fitting


def _examples_of(task: Task, examples: Examples) -> list[Example]:
    return [example for (name, _), part in examples.items() if name == task.name for example in part]


def _file_rows(task: Task) -> Answers:
    """An unanswered row for every question of the user's file, in all its languages."""
    loaded = [(row, language) for language in task.languages for row in task.load(language, task.split, None)]
    examples = [task.example(row, language) for row, language in loaded]
    rows = [description(task, example) for example in examples if example]
    return {row["key"]: row for row in rows}
