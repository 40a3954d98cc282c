"""A trained run in, its zero-shot scores in many languages out: predictions, report and picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from jaxprefix import tasks
from jaxprefix.directory import RUN_FILE, read_run
from jaxprefix.evaluation import pictures, report
from jaxprefix.evaluation.asking import Place, answer
from jaxprefix.evaluation.model import Model, open_model
from jaxprefix.evaluation.predictions import Answers, description, origin, same_question, unanswered, write
from jaxprefix.evaluation.questions import Question, questions
from jaxprefix.evaluation.settings import Evaluation
from jaxprefix.evaluation.wanted import Examples, wanted_examples, wanted_tasks
from jaxprefix.run import RunConfig
from jaxprefix.saved import Saved
from jaxprefix.tasks.task import Example, Task


def evaluate(directory: Path, settings: Evaluation, quiet: bool = False) -> report.Report:
    """Predicts, scores, writes predictions.jsonl, report.json, report.md and report.png, and prints the tables.

    What the run's adapter has answered before is not asked again, and scores of other tasks and languages stay.
    ValueError for what the user can mend.
    """
    return evaluate_together([directory], settings, quiet)[0]


def evaluate_together(directories: Sequence[Path], settings: Evaluation, quiet: bool = False) -> list[report.Report]:
    """`evaluate` of several runs of one base and one kind, whose rows share the frozen model's batches."""
    settings.check()
    if settings.output and len(directories) > 1:
        raise ValueError(f"--output {settings.output} is for one run, given {len(directories)}; leave it out")
    configs = [RunConfig.from_json(read_run(directory / RUN_FILE)["config"]) for directory in directories]
    chosen = wanted_tasks(configs, settings)
    baseline = settings.baseline and report.read_report(settings.baseline)
    # Rows are read before the model is loaded: what is missing is said at once.
    examples = wanted_examples(chosen, settings, configs[0])
    model, runs = open_model(directories, settings.mesh, settings.batch, settings.max_length)
    for directory, run in zip(directories, runs, strict=True):
        if not run.described["finished"]:
            steps = run.described["steps"]
            print(f"run {directory} is not finished: these are the scores of step {run.step} of {steps}")
    asked = {task.name: (task, _questions(model, task, examples)) for task in chosen}
    how = f"at most {model.max_length} tokens, {settings.sampling}"
    how += f", split {settings.split}" if settings.split else ""
    places = [
        Place(settings.output or directory, origin(run.described, run.step, how))
        for directory, run in zip(directories, runs, strict=True)
    ]
    answers = answer(model, asked, places, settings.batch, settings.sampling, quiet)
    print(f"compiled {model.compilations} shapes")
    if settings.eval_file:  # another file of the same name may have asked other things before
        answers = [_without_strangers(held, chosen[0]) for held in answers]
    each = zip(places, runs, answers, strict=True)
    return [_report(place, run, chosen, examples, held, baseline) for place, run, held in each]


def _report(
    place: Place,
    run: Saved,
    chosen: Sequence[Task],
    examples: Examples,
    answers: Answers,
    baseline: report.Report | None,
) -> report.Report:
    """Writes and prints what one run has answered, now and before."""
    directory = place.directory
    empty = {same_question(row): row for task in chosen for row in _unanswered(task, examples, place.origin)}
    others = [row for row in answers.values() if (row["task"], row["language"]) not in examples]
    rows = others + [answers.get(key, row) for key, row in empty.items()]
    shown = {same_question(row) for row in rows}
    write(directory, rows + [row for key, row in answers.items() if key not in shown])
    known = {task.name: task for task in (*tasks.TASKS, *chosen)}
    found, statistics = build(run.config, run.described["source"], rows, known)
    notes = {name: task.note for name, task in known.items() if task.note}
    report.write(found, notes, directory, baseline, statistics)
    drawn = pictures.draw(found, statistics, directory, baseline)
    Console().print(*report.table(found, baseline, statistics))
    print(f"report: {directory / 'report.md'} · pictures: {', '.join(map(str, drawn))} (and .svg)")
    return found


def build(
    config: RunConfig, source: str, rows: Sequence[dict[str, Any]], known: Mapping[str, Task]
) -> tuple[report.Report, report.Statistics]:
    """The report of these prediction rows and its intervals; `source` is the language that was trained."""
    summaries, measured = {}, {}
    for name in dict.fromkeys(row["task"] for row in rows):
        own = [row for row in rows if row["task"] == name]
        corpus = known[name].corpus if name in known else None
        summary = report.summarise(own, list(own[0]["scores"]), source, corpus)
        summaries[name] = summary
        measured[name] = report.measure(own, summary, whole=summary["metrics"] if corpus else ())
    return report.build(config.model or "embedded", config.method, source, summaries), report.build_statistics(measured)


def _questions(model: Model, task: Task, examples: Examples) -> list[Question]:
    """What can be asked of the task's examples; what cannot is counted in a line, and scores 0."""
    mine = _of(task, examples)
    if not mine:
        raise ValueError(f"task {task.name}: no row has an answer; choose other rows, or another --split")
    asked = questions(model, task, mine)
    cut, long = sum(each.cut for each in asked), len(mine) - len(asked)
    if cut or long:
        print(f"{task.name}: {cut:,} contexts cut to fit, {long:,} questions too long for --max-length: they score 0")
    if not asked:
        raise ValueError(f"task {task.name}: none of {len(mine):,} questions fits the run's {model.max_length} tokens")
    return asked


def _of(task: Task, examples: Examples) -> list[Example]:
    return [example for (name, _), part in examples.items() if name == task.name for example in part]


def _without_strangers(answers: Answers, own: Task) -> Answers:
    """Without the rows of the task's name that its file does not ask."""
    every = [own.example(row, language) for language in own.languages for row in own.load(language, own.split, None)]
    asked = {same_question(description(own, example)) for example in every if example}
    return {key: row for key, row in answers.items() if row["task"] != own.name or key in asked}


def _unanswered(task: Task, examples: Examples, origin: dict[str, Any]) -> list[dict[str, Any]]:
    return [unanswered(task, example) | origin for example in _of(task, examples)]
