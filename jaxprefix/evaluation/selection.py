"""Which tasks, languages and rows an evaluation is about."""

from collections.abc import Mapping, Sequence

from jaxprefix import tasks
from jaxprefix.errors import InputError
from jaxprefix.evaluation.settings import Evaluation, names
from jaxprefix.runs.config import RunConfig
from jaxprefix.tasks.languages import same_language
from jaxprefix.tasks.task import Example, Task, check_languages
from jaxprefix.tasks.user_rows import own_rows_task

Examples = Mapping[tuple[str, str], Sequence[Example]]  # by task and language


def select_tasks(configs: Sequence[RunConfig], settings: Evaluation) -> list[Task]:
    """What the runs are asked; InputError where that is unknown, or they would not be asked the same."""
    found = [_tasks(config, settings) for config in configs]
    for other in found[1:]:
        if [task.name for task in other] != [task.name for task in found[0]]:
            raise InputError("the runs were trained on different tasks; say what to ask: --task or --eval-file")
    return found[0]


def _tasks(config: RunConfig, settings: Evaluation) -> list[Task]:
    if settings.eval_file:
        own = own_rows_task(settings.eval_file)
        if own.name in tasks.names():
            raise InputError(f"--eval-file {settings.eval_file} has the name of the task {own.name}; rename the file")
        return [own]
    if settings.task:
        return [_measuring(name) for name in names(settings.task)]
    if config.train_file or (config.model and not config.task):
        raise InputError("the run was trained on your own rows; say what to ask: --eval-file FILE or --task xquad")
    return [tasks.find(name) for name in tasks.find(config.task or "babel-qa").eval_tasks]


def _measuring(name: str) -> Task:
    task = tasks.find(name)
    if task.eval_tasks and task.name not in task.eval_tasks:
        raise InputError(f"task {name} is for training; evaluate on {', '.join(task.eval_tasks)}")
    return task


def _languages(task: Task, text: str | None) -> Sequence[str]:
    """The task's own codes; de also names Belebele's deu_Latn."""
    if text is None:
        return task.languages
    given = names(text)
    found = [next((own for own in task.languages if same_language(own, code)), code) for code in given]
    check_languages(task, found)
    return tuple(dict.fromkeys(found))


def select_examples(chosen: Sequence[Task], settings: Evaluation, config: RunConfig) -> Examples:
    """The rows of every task and language; InputError for a language that a task lacks, or rows that it has not."""
    for task in chosen:
        if settings.split and config.task == task.name and settings.split == (config.split or task.train_split):
            raise InputError(f"the run was trained on --split {settings.split} of {task.name}; choose another to ask")
    pairs = [(task, language) for task in chosen for language in _languages(task, settings.languages)]
    return {(task.name, language): _examples(task, language, settings, config) for task, language in pairs}


def _examples(task: Task, language: str, settings: Evaluation, config: RunConfig) -> list[Example]:
    rows = task.load(language, settings.split or task.split, settings.data or config.data)
    return [example for row in rows if (example := task.example(row, language))][: settings.limit]
