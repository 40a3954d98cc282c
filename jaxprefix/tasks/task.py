"""What is asked: an Example is one question and its answer, a Task is where examples come from and how they score."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxprefix.errors import InputError

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Example:
    """One question put to the model and what is known of its answer.

    The prompt is cut in three because a length is kept by shortening the context, never the question or the answer.
    """

    id: str
    language: str
    before: str
    """The instruction and all that stands before the context."""
    context: str
    """The only part that may be cut to fit a length; may be empty."""
    after: str
    """The question and the cue for the answer; ends with a newline, so that prompt and response tokenise apart."""
    response: str
    """What training learns: the first accepted answer, or the right choice; without a leading space."""
    references: tuple[str, ...] = ()
    """Every accepted answer, where the answer is generated."""
    choices: tuple[str, ...] = ()
    """The candidates, where the answer is the likeliest of them; then the response is one of them."""

    @property
    def prompt(self) -> str:
        return self.before + self.context + self.after


@dataclass(frozen=True)
class Task:
    """A benchmark, or a user's own rows. With `evaluated_on` it is one to train on; those named there measure it."""

    name: str
    languages: tuple[str, ...]
    """BCP-47 or FLORES codes, in the data set's order."""
    split: str
    """The split that is read when the user names none."""
    load: Callable[[str, str, Path | None], list[Row]]
    """(language, split, local mirror or None) -> rows; InputError where they cannot be had."""
    example: Callable[[Row, str], Example | None]
    """(row, language) -> its example, or None for a row that has no answer."""
    metrics: tuple[str, ...]
    """What `score` returns; the first is the headline."""
    score: Callable[[str, Example], dict[str, float]]
    """(answer, example) -> a value from 0 to 1 for each metric.

    The answer is what `answer` makes of a generated text, or the likeliest choice. Choices are also scored by the
    likeliest a token, under the metric's name and "_norm".
    """
    max_new_tokens: int = 0
    """The length of a generated answer; 0 where choices are scored."""
    stop: tuple[str, ...] = ()
    """Texts at which a generated answer ends, and which are no part of it; they may straddle tokens."""
    answer: Callable[[str], str] = str
    """What of a generated text is the answer that `score` is given; "" where there is none: a parse failure."""
    corpus_metrics: Callable[[Sequence[str], Sequence[Sequence[str]]], dict[str, float]] | None = None
    """(answers, references of each) of one language -> values from 0 to 1 of metrics that are no means of rows (BLEU);
    they stand in the report in the place of the rows' means of the same names."""
    train_split: str = "train"
    """The split that training reads when the user names none."""
    eval_tasks: tuple[str, ...] = ()
    """Names of the tasks that measure the transfer of what this one trains."""
    forbidden_splits: Mapping[str, str] = field(default_factory=dict)
    """Splits that training must refuse, each with the reason."""
    note: str = ""
    """What a reader of the scores must know."""


def check_languages(task: Task, languages: Sequence[str]) -> None:
    """Refuses, with a InputError that names the task's languages, any that the task does not have."""
    unknown = [language for language in languages if language not in task.languages]
    if unknown:
        raise InputError(
            f"task {task.name} has no language {', '.join(map(repr, unknown))}; it has {', '.join(task.languages)}"
        )
