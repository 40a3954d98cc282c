"""A trained run in, its zero-shot scores in many languages out: predictions, report and picture."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from jaxprefix import tasks
from jaxprefix.directory import RUN_FILE, read_run
from jaxprefix.evaluation import pictures, report
from jaxprefix.evaluation.asking import Place, answer
from jaxprefix.evaluation.model import Model, open_model
from jaxprefix.evaluation.predictions import Answers, description, origin, same_question, unanswered, write
from jaxprefix.evaluation.questions import Question, questions
from jaxprefix.models.sample import Sampling
from jaxprefix.run import RunConfig
from jaxprefix.saved import Saved
from jaxprefix.tasks.own import own_rows_task
from jaxprefix.tasks.task import Example, Task, check_languages

Examples = Mapping[tuple[str, str], Sequence[Example]]  # by task and language


@dataclass(frozen=True)
class Evaluation:
    """Scores a run in the languages of one or more tasks."""

    task: str | None = None
    """Comma-separated, such as xquad,xnli; left out, what measures the trained task."""
    languages: str | None = None
    """Comma-separated codes, such as de,hi,sw; left out, all that the task has."""
    eval_file: Path | None = None
    """Your own rows {"prompt", "response"[, "language"][, "choices"]} in the place of a task."""
    data: Path | None = None
    """A local mirror of the hub; left out, the one that the run was trained with."""
    limit: int | None = None
    """Rows a language."""
    batch: int = 32
    """Rows at a time."""
    max_length: int | None = None
    """Tokens a row, prompt and answer; longer contexts are cut. Left out, what the run was trained with."""
    temperature: float = 0.0
    """Generated answers are drawn at it; 0 takes the likeliest token."""
    top_k: int = 0
    """Draw among so many of the likeliest tokens; 0 is all."""
    top_p: float = 1.0
    """Draw among the likeliest tokens that hold this share together."""
    seed: int = 0
    """Of the draws."""
    baseline: Path | None = None
    """Another evaluated run, such as the frozen base's, to show beside this one."""
    output: Path | None = None
    """A directory for predictions, report and pictures; left out, the run's own."""
    mesh: str | None = None
    """DATAxMODEL, such as 4x2; left out, all devices x 1."""
    platform: Literal["cpu", "cuda", "tpu"] | None = None
    """Where to run; cpu emulates any mesh."""

    def check(self) -> None:
        """ValueError, in one line, for settings that cannot be."""
        for name in ("limit", "batch", "max_length"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} is {getattr(self, name)}; expected at least 1")
        self.sampling  # noqa: B018 - refuses draws that cannot be
        if self.task and self.eval_file:
            raise ValueError(f"--task {self.task} and --eval-file {self.eval_file} both say what to ask; give one")

    @property
    def sampling(self) -> Sampling:
        """How the tokens of generated answers are chosen."""
        return Sampling(self.temperature, self.top_k, self.top_p, self.seed)


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
    chosen = _same_tasks(configs, settings)
    wanted = [(task, language) for task in chosen for language in _languages(task, settings.languages)]
    baseline = _baseline(settings.baseline)
    # Rows are read before the model is loaded: what is missing is said at once.
    examples = {(task.name, language): _examples(task, language, settings, configs[0]) for task, language in wanted}
    model, runs = open_model(directories, settings.mesh, settings.batch, settings.max_length)
    for directory, run in zip(directories, runs, strict=True):
        if not run.described["finished"]:
            steps = run.described["steps"]
            print(f"run {directory} is not finished: these are the scores of step {run.step} of {steps}")
    asked = {task.name: (task, _questions(model, task, examples)) for task in chosen}
    how = f"at most {model.max_length} tokens, {settings.sampling}"
    places = [
        Place(settings.output or directory, origin(run.described, run.step, how))
        for directory, run in zip(directories, runs, strict=True)
    ]
    answers = answer(model, asked, places, settings.batch, settings.sampling, quiet)
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


def _same_tasks(configs: Sequence[RunConfig], settings: Evaluation) -> list[Task]:
    found = [_tasks(config, settings) for config in configs]
    for other in found[1:]:
        if [task.name for task in other] != [task.name for task in found[0]]:
            raise ValueError("the runs were trained on different tasks; say what to ask: --task or --eval-file")
    return found[0]


def _tasks(config: RunConfig, settings: Evaluation) -> list[Task]:
    if settings.eval_file:
        own = own_rows_task(settings.eval_file)
        if own.name in tasks.names():
            raise ValueError(f"--eval-file {settings.eval_file} has the name of the task {own.name}; rename the file")
        return [own]
    if settings.task:
        return [_measuring(name) for name in dict.fromkeys(settings.task.split(","))]
    if config.train_file or (config.model and not config.task):
        raise ValueError("the run was trained on your own rows; say what to ask: --eval-file FILE or --task xquad")
    return [tasks.find(name) for name in tasks.find(config.task or "babel-qa").evaluated_on]


def _measuring(name: str) -> Task:
    task = tasks.find(name)
    if task.evaluated_on and task.name not in task.evaluated_on:
        raise ValueError(f"task {name} is for training; evaluate on {', '.join(task.evaluated_on)}")
    return task


def _languages(task: Task, text: str | None) -> Sequence[str]:
    languages = task.languages if text is None else tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    check_languages(task, languages)
    return languages


def _examples(task: Task, language: str, settings: Evaluation, config: RunConfig) -> list[Example]:
    rows = task.load(language, task.split, settings.data or config.data)
    return [example for row in rows if (example := task.example(row, language))][: settings.limit]


def _questions(model: Model, task: Task, examples: Examples) -> list[Question]:
    """What can be asked of the task's examples; what cannot is counted in a line, and scores 0."""
    mine = _of(task, examples)
    if not mine:
        raise ValueError(f"task {task.name}: no row of the split {task.split} has an answer; choose other rows")
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


def _baseline(directory: Path | None) -> report.Report | None:
    if directory is None:
        return None
    try:
        found = json.loads((directory / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ValueError(f"--baseline {directory} has no report.json; evaluate that run first") from None
    if not isinstance(found, dict) or not set(report.Report.__annotations__) <= set(found):
        raise ValueError(f"--baseline {directory}: its report.json is not a report; evaluate that run again")
    return found  # type: ignore[return-value]
