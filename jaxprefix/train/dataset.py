"""The training rows and held-out rows of a run, encoded, from a task or from the user's own files."""

import hashlib
from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from jaxprefix import tasks
from jaxprefix.errors import InputError
from jaxprefix.runs.base_model import EMBEDDED_TASK, BaseModel
from jaxprefix.runs.config import RunConfig
from jaxprefix.tasks.encoding import Encoded, encode
from jaxprefix.tasks.task import Example, Task, check_languages, check_split
from jaxprefix.tasks.user_rows import own_rows_task
from jaxprefix.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Rows:
    """Encoded training rows and held-out rows, and how many were changed or left out."""

    learn: list[Encoded]
    held_out: list[Encoded]
    cut: int  # contexts truncated to fit
    skipped: int  # rows that are too long even without a context

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of the training rows, in their order."""
        return hashlib.sha256(repr([(row.prompt, row.response) for row in self.learn]).encode()).hexdigest()

    def __str__(self) -> str:
        line = f"data: {len(self.learn):,} rows to learn, {len(self.held_out):,} held out"
        line += f"; {self.cut:,} contexts cut to fit" if self.cut else ""
        return line + (f"; {self.skipped:,} rows skipped: too long for --max-length" if self.skipped else "")


def training_task(config: RunConfig) -> Task:
    """The training task. InputError for a task that is only a benchmark, or a split that a benchmark contains."""
    if config.train_file:
        return own_rows_task(config.train_file)
    if config.model and not config.task:
        raise InputError(f"--model without a task; give --task ({', '.join(tasks.training())}) or --train-file FILE")
    task = tasks.find(config.task or EMBEDDED_TASK)
    if not task.eval_tasks:
        trained = [other.name for other in tasks.TASKS if task.name in other.eval_tasks] or tasks.training()
        raise InputError(f"task {task.name} is only for evaluation; train on {', '.join(trained)}")
    check_split(task, config.split, "--split")
    return task


def rows_key(config: RunConfig, base: BaseModel, longest: int) -> tuple[Hashable, ...]:
    """Everything that `load_rows` depends on: equal keys have equal rows."""
    names = "task language split data train_file eval_file limit held_out seed chat chat_date".split()
    return (base.fingerprint, longest, *(getattr(config, name) for name in names))


def load_rows(config: RunConfig, task: Task, tokenizer: Tokenizer, longest: int) -> Rows:
    """Loads the examples, shuffles them with the seed, holds some out, and encodes rows of at most `longest` tokens.

    InputError if no training row is left.
    """
    examples = _examples(task, languages(config, task), config.split, config.data)
    if not examples:
        raise InputError(f"task {task.name}: no row of the training split has an answer; choose another --split")
    order = np.random.default_rng(config.seed).permutation(len(examples))
    examples = [examples[index] for index in order][: config.limit]
    if config.eval_file:
        eval_task = own_rows_task(config.eval_file)
        held_out = _examples(eval_task, eval_task.languages, None, None)
    else:  # at most a tenth, so that a small data set is left to learn
        count = min(config.held_out, len(examples) // 10)
        held_out, examples = examples[:count], examples[count:]
    learn = [encode(tokenizer, example, longest, chat=config.chat) for example in examples]
    score = [encode(tokenizer, example, longest, chat=config.chat) for example in held_out]
    fitting = [row for row in learn if row]
    if not fitting:
        short = (
            "raise it" if longest == config.max_length else "shorten the soft prompt, which leaves no more positions"
        )
        raise InputError(f"none of {len(learn):,} rows fits --max-length {longest}, even without context; {short}")
    cut = sum(row.cut for row in [*fitting, *(row for row in score if row)])
    return Rows(fitting, [row for row in score if row], cut, learn.count(None) + score.count(None))


def languages(config: RunConfig, task: Task) -> tuple[str, ...]:
    """The training languages. InputError for a language that the task does not have."""
    if config.train_file and config.language is None:
        return task.languages
    language = config.language or "en"
    if not config.language and language not in task.languages:
        raise InputError(f"task {task.name} has no English; give --language: {', '.join(task.languages)}")
    check_languages(task, [language])
    return (language,)


def _examples(task: Task, languages: tuple[str, ...], split: str | None, data: Path | None) -> list[Example]:
    examples = []
    for language in languages:
        rows = task.load(language, split or task.train_split, data)
        examples += [example for row in rows if (example := task.example(row, language))]
    return examples
