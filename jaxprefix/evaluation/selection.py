"""The tasks, languages and examples of an evaluation."""

import hashlib
import re
from collections.abc import Mapping, Sequence

from jaxprefix import tasks
from jaxprefix.errors import InputError
from jaxprefix.evaluation.settings import Evaluation, names
from jaxprefix.runs.config import RunConfig
from jaxprefix.tasks.languages import find_language, same_language
from jaxprefix.tasks.task import Example, Task, check_languages
from jaxprefix.tasks.user_rows import own_rows_task

SEED = 0  # of --limit alone: --seed is of the samples, and every run is evaluated on the same rows
UNDER = re.compile(r"under-(\d+(?:\.\d+)?)([MB])")  # words in FineWeb2
UNITS = {"M": 1e6, "B": 1e9}
Examples = Mapping[tuple[str, str], Sequence[Example]]  # by task and language


def select_tasks(configs: Sequence[RunConfig], settings: Evaluation) -> list[Task]:
    """The tasks to evaluate the runs on; InputError if one is unknown, or if they differ between the runs."""
    selected = [_tasks(config, settings) for config in configs]
    for other in selected[1:]:
        if [task.name for task in other] != [task.name for task in selected[0]]:
            raise InputError("the runs were trained on different tasks; choose the benchmark: --task or --eval-file")
    return selected[0]


def _tasks(config: RunConfig, settings: Evaluation) -> list[Task]:
    if settings.eval_file:
        task = own_rows_task(settings.eval_file)
        if task.name in tasks.names():
            raise InputError(f"--eval-file {settings.eval_file} has the name of the task {task.name}; rename the file")
        return [task]
    if settings.task:
        return [_benchmark(name) for name in names(settings.task)]
    if config.train_file or (config.model and not config.task):
        raise InputError("the run was trained on your own rows; choose the benchmark: --eval-file FILE or --task xquad")
    return [tasks.find(name) for name in tasks.find(config.task or "babel-qa").eval_tasks]


def _benchmark(name: str) -> Task:
    task = tasks.find(name)
    if task.eval_tasks and task.name not in task.eval_tasks:
        raise InputError(f"task {name} is for training; evaluate on {', '.join(task.eval_tasks)}")
    return task


def select_languages(task: Task, text: str | None) -> Sequence[str]:
    """The task's codes of the languages that `text` names; "de" also matches Belebele's "deu_Latn"."""
    if text is None:
        return task.languages
    codes = [code for name in names(text) for code in _codes(task, name)]
    check_languages(task, codes)
    return tuple(dict.fromkeys(codes))


def _codes(task: Task, name: str) -> list[str]:
    """The task's code of a language, or of all that have fewer words for pretraining than "under-500M" says."""
    limit = UNDER.fullmatch(name)
    if not limit:
        return [next((code for code in task.languages if same_language(code, name)), name)]
    most = float(limit[1]) * UNITS[limit[2]]
    languages = {code: find_language(code) for code in task.languages}
    codes = [code for code, known in languages.items() if known and known.words is not None and known.words < most]
    if not codes:
        raise InputError(f"--languages {name}: no language of {task.name} has so few words; choose a higher number")
    return codes


def select_examples(selected: Sequence[Task], settings: Evaluation, config: RunConfig) -> Examples:
    """The examples of every task and language; InputError for a language or split that a task does not have."""
    for task in selected:
        if settings.split and config.task == task.name and settings.split == (config.split or task.train_split):
            raise InputError(f"the run was trained on --split {settings.split} of {task.name}; choose another split")
    pairs = [(task, language) for task in selected for language in select_languages(task, settings.languages)]
    return {
        (task.name, language): spread(all_examples(task, language, settings, config), settings.limit)
        for task, language in pairs
    }


def all_examples(task: Task, language: str, settings: Evaluation, config: RunConfig) -> list[Example]:
    """The examples of a language, without --limit."""
    rows = task.load(language, settings.split or task.split, settings.data or config.data)
    return [example for row in rows if (example := task.example(row, language))]


def spread(examples: Sequence[Example], limit: int | None) -> list[Example]:
    """At most `limit` examples from all parts of a file, in its order."""
    return [examples[index] for index in spread_indices([example.id for example in examples], limit)]


def spread_indices(ids: Sequence[str], limit: int | None) -> list[int]:
    """The indices of at most `limit` ids from all parts of a file, in its order.

    They are those whose ids have the lowest hashes. So languages with the same ids have the same questions, and a
    higher limit adds questions to those of a lower one.
    """
    hashes = [hashlib.sha256(f"{SEED} {id}".encode()).digest() for id in ids]
    return sorted(sorted(range(len(ids)), key=lambda index: (hashes[index], index))[:limit])
