"""What a run learns from and is scored on while it trains: a task's rows or the user's own, encoded."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxprefix import tasks
from jaxprefix.errors import InputError
from jaxprefix.runs.base_model import EMBEDDED_TASK
from jaxprefix.runs.config import RunConfig
from jaxprefix.tasks.encoding import Encoded, encode
from jaxprefix.tasks.task import Example, Task, check_languages
from jaxprefix.tasks.user_rows import own_rows_task
from jaxprefix.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Rows:
    """Encoded rows to learn and held-out ones, and what became of the others."""

    learn: list[Encoded]
    held_out: list[Encoded]
    cut: int  # contexts shortened to fit
    skipped: int  # rows whose question and answer alone are too long

    @property
    def fingerprint(self) -> str:
        """A SHA-256 of what is learnt, in its order."""
        return hashlib.sha256(repr([(row.prompt, row.response) for row in self.learn]).encode()).hexdigest()

    def __str__(self) -> str:
        line = f"data: {len(self.learn):,} rows to learn, {len(self.held_out):,} held out"
        line += f"; {self.cut:,} contexts cut to fit" if self.cut else ""
        return line + (f"; {self.skipped:,} rows skipped: too long for --max-length" if self.skipped else "")


def training_task(config: RunConfig) -> Task:
    """The task that the run trains; InputError for one that only measures, or a split that leaks into a benchmark."""
    if config.train_file:
        return own_rows_task(config.train_file)
    if config.model and not config.task:
        raise InputError(f"--model without a task; give --task ({', '.join(tasks.training())}) or --train-file FILE")
    task = tasks.find(config.task or EMBEDDED_TASK)
    if not task.eval_tasks:
        trained = ", ".join(each.name for each in tasks.TASKS if task.name in each.eval_tasks)
        raise InputError(f"task {task.name} measures and is never trained on; train on {trained}")
    for split, reason in task.forbidden_splits.items():
        # A slice or a sum names the split within a longer text, and "all" is the hub's word for every split.
        if config.split and (split in config.split or config.split == "all"):
            raise InputError(f"--split {config.split} of {task.name} must not be trained on: {reason}")
    return task


def load_rows(config: RunConfig, task: Task, tokenizer: Tokenizer, longest: int) -> Rows:
    """Reads, shuffles (seeded), holds out and encodes to at most `longest` tokens a row.

    InputError where nothing is left to learn.
    """
    examples = _examples(task, languages(config, task), config.split, config.data)
    if not examples:
        raise InputError(f"task {task.name}: no row of the training split has an answer; choose another --split")
    order = np.random.default_rng(config.seed).permutation(len(examples))
    examples = [examples[index] for index in order][: config.limit]
    if config.eval_file:
        own = own_rows_task(config.eval_file)
        held = _examples(own, own.languages, None, None)
    else:  # never more than a tenth: a small set is there to be learnt
        count = min(config.held_out, len(examples) // 10)
        held, examples = examples[:count], examples[count:]
    learn = [encode(tokenizer, example, longest, chat=config.chat) for example in examples]
    score = [encode(tokenizer, example, longest, chat=config.chat) for example in held]
    whole = [row for row in learn if row]
    if not whole:
        short = "raise it" if longest == config.max_length else "the soft prompt leaves no more: shorten it"
        raise InputError(f"none of {len(learn):,} rows fits --max-length {longest}, even without context; {short}")
    cut = sum(row.cut for row in [*whole, *(row for row in score if row)])
    return Rows(whole, [row for row in score if row], cut, learn.count(None) + score.count(None))


def languages(config: RunConfig, task: Task) -> tuple[str, ...]:
    """What the run trains on; InputError for a language that the task does not have."""
    if config.train_file and config.language is None:
        return task.languages
    language = config.language or "en"
    if not config.language and language not in task.languages:
        raise InputError(f"task {task.name} has no English; give --language: {', '.join(task.languages)}")
    check_languages(task, [language])
    return (language,)


def _examples(task: Task, languages: tuple[str, ...], split: str | None, data: Path | None) -> list[Example]:
    found = []
    for language in languages:
        rows = task.load(language, split or task.train_split, data)
        found += [example for row in rows if (example := task.example(row, language))]
    return found
