"""An `Example` is one question and its answer. A `Task` says where examples come from and how answers are scored."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxprefix.errors import InputError
from jaxprefix.io.messages import similar

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Example:
    """One question for the model and its correct answer.

    The prompt has three parts because only the context may be shortened to fit a length, never the question.
    """

    id: str
    language: str
    before: str
    """The instruction, and everything else before the context."""
    context: str
    """The only part that may be cut to fit a length. It may be empty."""
    after: str
    """The question and the cue for the answer. It ends with a newline, so that no token spans prompt and response."""
    response: str
    """The target of training: the first accepted answer or the right choice, without a leading space."""
    references: tuple[str, ...] = ()
    """Every accepted answer, if answers are generated."""
    choices: tuple[str, ...] = ()
    """The candidates, if the answer is the most likely of them. The response is one of them."""
    shared: str = ""
    """The text that several questions may share, such as a passage. Their errors are correlated."""

    @property
    def prompt(self) -> str:
        return self.before + self.context + self.after


@dataclass(frozen=True)
class Task:
    """A benchmark, or a user's own rows. It can be trained on if it names `eval_tasks`."""

    name: str
    languages: tuple[str, ...]
    """BCP-47 or FLORES codes, in the order of the data set."""
    split: str
    """The default split of evaluation."""
    load: Callable[[str, str, Path | None], list[Row]]
    """(language, split, local mirror or None) -> rows. InputError if they could not be loaded."""
    example: Callable[[Row, str], Example | None]
    """(row, language) -> the example; None for a row without an answer."""
    metrics: tuple[str, ...]
    """The names of the values that `score` and `score_text` return; the first is the main metric."""
    score: Callable[[str, Example], dict[str, float]]
    """(answer, example) -> a value from 0 to 1 for each metric.

    The answer is the result of `answer` for a generated text, or the most likely choice. A second score takes the
    choice with the highest likelihood per token; its metric has the suffix "_norm".
    """
    max_new_tokens: int = 0
    """The maximum length of a generated answer; 0 if choices are scored."""
    stop: tuple[str, ...] = ()
    """Texts that end a generated answer and are not part of it. They may span tokens."""
    answer: Callable[[str], str] = str
    """Extracts from a generated text the answer that `score` takes; "" is a parse failure."""
    score_text: Callable[[str, Example], dict[str, float]] | None = None
    """(generated text, example) -> the metrics that are computed from the whole text, in place of the answer."""
    corpus_metrics: Callable[[Sequence[str], Sequence[Sequence[str]]], dict[str, float]] | None = None
    """(answers, references of each) of one language -> values from 0 to 1, for metrics that are not means over rows,
    such as BLEU. The report has them instead of the means of the same names."""
    train_split: str = "train"
    """The default split of training."""
    eval_tasks: tuple[str, ...] = ()
    """Names of the tasks that evaluate a model trained on this one."""
    forbidden_splits: Mapping[str, str] = field(default_factory=dict)
    """Splits that training refuses, each with the reason."""
    cluster: str = "question"
    """What `Example.shared` is, such as "passage"."""
    note: str = ""
    """What readers of the scores should know."""


def check_split(task: Task, split: str | None, flag: str) -> None:
    """InputError, which names the flag, if a benchmark contains the split, so that it must not be trained on."""
    for forbidden, reason in task.forbidden_splits.items():
        # A slice or a sum contains the name of the split, and "all" means every split on the Hub.
        if split and (forbidden in split or split == "all"):
            raise InputError(f"{flag} {split} of {task.name} must not be trained on: {reason}")


def check_languages(task: Task, languages: Sequence[str]) -> None:
    """InputError, with the languages of the task, if it does not have all of `languages`."""
    unknown = [language for language in languages if language not in task.languages]
    if unknown:
        raise InputError(
            f"task {task.name} has no language {', '.join(map(repr, unknown))}; it has {', '.join(task.languages)}"
            f"{similar(unknown[0].lower(), task.languages)}"
        )
