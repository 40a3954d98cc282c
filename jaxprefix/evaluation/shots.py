"""The few-shot examples of an evaluation: examples with their answers, in front of every question of a language.

They depend on the benchmark, the language, --seed and --shots alone, so that all runs have the same ones.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxprefix import tasks
from jaxprefix.errors import InputError
from jaxprefix.evaluation.selection import Examples, all_examples
from jaxprefix.evaluation.settings import Evaluation
from jaxprefix.runs.config import RunConfig
from jaxprefix.tasks.languages import same_language
from jaxprefix.tasks.task import Example, Task, check_split
from jaxprefix.tasks.user_rows import own_rows_task

Shots = Mapping[tuple[str, str], tuple[Example, ...]]  # by task and language of the questions


def draw_shots(
    selected: Sequence[Task],
    examples: Examples,
    settings: Evaluation,
    configs: Sequence[RunConfig],
    sources: Sequence[str],
) -> Shots:
    """The few-shot examples of every task and language; none without --shots.

    They are never questions of the evaluation, with --limit or without.

    Args:
        examples: the questions.
        configs: those of the runs, for the mirror and the runs' own rows.
        sources: the training languages of the runs.

    Raises:
        InputError: there is no training data in the language, or too little.
    """
    if not settings.shots:
        return {}
    by_name, data = {task.name: task for task in selected}, settings.data or configs[0].data
    pools: dict[tuple[str, str], list[Example]] = {}  # by training task and language
    shots = {}
    for name, language in examples:
        task = by_name[name]
        origin, code = _origin(task, _shot_language(settings, sources, language), _candidates(task, settings, configs))
        split = _split(task, origin, settings)
        if (origin.name, code) not in pools:
            rows = origin.load(code, split, data)
            pools[origin.name, code] = _shuffled(
                [made for row in rows if (made := origin.example(row, code))], settings
            )
        questions = {example.prompt for example in all_examples(task, language, settings, configs[0])}
        others = [example for example in pools[origin.name, code] if example.prompt not in questions]
        if len(others) < settings.shots:
            raise InputError(
                f"--shots {settings.shots}: {origin.name} has {len(others):,} examples in {code} that are not "
                f"questions of {name} ({language}); choose at most as many"
            )
        shots[name, language] = tuple(others[: settings.shots])
    return shots


def _shot_language(settings: Evaluation, sources: Sequence[str], language: str) -> str:
    """The language of the examples for questions in `language`."""
    if settings.shots_language != "source":
        return language if settings.shots_language == "target" else settings.shots_language
    distinct = ",".join(dict.fromkeys(sources))
    if "," in distinct:
        raise InputError(f"the runs were trained in {distinct}; name one language: --shots-language en, or target")
    return distinct


def _candidates(task: Task, settings: Evaluation, configs: Sequence[RunConfig]) -> list[Task]:
    """The tasks whose training data has the examples for a benchmark."""
    if not settings.eval_file:
        if found := tasks.training_tasks(task.name):
            return found
        raise InputError(f"--shots {settings.shots}: no task has training data for {task.name}; leave --shots out")
    files: set[Path | None] = {config.train_file for config in configs}
    if len(files) > 1 or None in files:
        raise InputError(
            "--shots with --eval-file takes the examples from the --train-file of the run; the runs have none, or "
            "several; evaluate runs that were trained on one file"
        )
    return [own_rows_task(file) for file in files if file]


def _origin(task: Task, language: str, candidates: Sequence[Task]) -> tuple[Task, str]:
    """The first of the tasks that has the language, and its code of it."""
    for origin in candidates:
        for code in origin.languages:
            if same_language(code, language):
                return origin, code
    available = "; ".join(f"{origin.name} has {', '.join(origin.languages)}" for origin in candidates)
    raise InputError(
        f"no training data for {task.name} in {language}: {available}; choose other --languages or --shots-language"
    )


def _split(task: Task, origin: Task, settings: Evaluation) -> str:
    """The split of the examples. InputError if it has questions of a benchmark, or their translations."""
    split = settings.shots_split or origin.train_split
    check_split(origin, split, "--shots-split")
    if origin.name == task.name and split == (settings.split or task.split) and not settings.eval_file:
        raise InputError(f"--split {split} of {task.name} has the few-shot examples; choose another --split")
    return split


def _shuffled(examples: Sequence[Example], settings: Evaluation) -> list[Example]:
    """The examples in an order that depends on their ids and --seed: languages of parallel data have the same."""

    def digest(example: Example) -> bytes:
        return hashlib.sha256(f"shots {settings.seed} {example.id}".encode()).digest()

    return sorted(examples, key=digest)
