"""Examples of a task as requests to the engine, and its answers as scored rows of predictions.jsonl."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jaxprefix.errors import InputError
from jaxprefix.evaluation.predictions import SHOTS, SHOTS_DROPPED, description
from jaxprefix.evaluation.shots import Shots
from jaxprefix.inference import engine
from jaxprefix.inference.batching import Bucket, Request, common_length
from jaxprefix.inference.engine import Scores
from jaxprefix.inference.model import Model
from jaxprefix.models.sampling import Sampling
from jaxprefix.tasks.encoding import encode, encode_few_shot
from jaxprefix.tasks.task import Example, Task
from jaxprefix.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Question:
    """An example, the key of its row, and its request.

    `cut` says whether its context was shortened to fit. `shots` are the few-shot examples that were drawn for it, and
    `shots_used` says how many of them, from the first on, are in the prompt.
    """

    key: str
    example: Example
    request: Request
    cut: bool
    shots: tuple[Example, ...] = ()
    shots_used: int = 0

    @property
    def shots_dropped(self) -> int:
        return len(self.shots) - self.shots_used

    @property
    def prompt_fields(self) -> dict[str, Any]:
        """What a row says of the prompt: whether the model read it whole, and the ids of its few-shot examples."""
        fit = {"fit": "cut" if self.cut else "whole"}
        used = [shot.id for shot in self.shots[: self.shots_used]]
        return fit | {SHOTS: used, SHOTS_DROPPED: self.shots_dropped} if self.shots else fit

    def for_adapter(self, adapter: int) -> "Question":
        """The same question for another of the model's adapters."""
        return replace(self, request=replace(self.request, adapter=adapter))


def questions(model: Model, task: Task, examples: Sequence[Example], shots: Shots) -> list[Question]:
    """The examples that fit the model's length, after as many few-shot examples as fit whole.

    Where none fits, the context is shortened if necessary. InputError if a choice has no tokens.
    """
    fitting, tokenizer = [], model.base.tokenizer
    for example in examples:
        choices, drawn = choice_ids(tokenizer, example), shots.get((task.name, example.language), ())
        room = max(map(len, choices)) if choices else task.max_new_tokens
        encoded = encode_few_shot(tokenizer, drawn, example, model.max_length, room, model.chat)
        if not encoded:
            # Without a context there is nothing to cut: prompts of any length that training accepts are evaluated.
            answer_tokens = room if choices or example.context else None
            encoded = encode(tokenizer, example, model.max_length, answer_tokens, model.chat)
        if encoded:
            key, request = description(task, example)["key"], Request(encoded.prompt, choices)
            fitting.append(Question(key, example, request, encoded.cut, drawn, encoded.shots))
    return _with_shared_prompts(fitting)


def _with_shared_prompts(rows: Sequence[Question]) -> list[Question]:
    """The questions, in their order. Prompts that begin with the same few-shot examples have a shared prompt."""
    by_shots: dict[tuple[Example, ...], list[list[int]]] = {}
    for row in rows:
        if row.shots and not row.shots_dropped:
            by_shots.setdefault(row.shots, []).append(row.request.prompt)
    shared: dict[tuple[Example, ...], tuple[int, ...]] = {}
    for shots, prompts in by_shots.items():
        first, last = min(prompts), max(prompts)
        shared[shots] = tuple(first[: common_length(first, last)])  # no prompt between these differs earlier
    return [replace(row, request=replace(row.request, shared_prompt=shared.get(row.shots, ()))) for row in rows]


def choice_ids(tokenizer: Tokenizer, example: Example) -> tuple[list[int], ...]:
    """The ids of the choices. They have their end token only if one choice is the beginning of another."""
    with_end = [tokenizer.response_ids(choice) for choice in example.choices]
    without_end = [ids[:-1] for ids in with_end]
    for choice, ids in zip(example.choices, without_end, strict=True):
        if not ids:
            question = f"question {example.id!r} ({example.language})"
            raise InputError(f"{question}: choice {choice!r} has no token in the model's tokenizer; expected some text")
    has_prefix = any(
        ids == other[: len(ids)]
        for index, ids in enumerate(without_end)
        for other in without_end[:index] + without_end[index + 1 :]
    )
    return tuple(with_end if has_prefix else without_end)


def predict(
    model: Model,
    task: Task,
    rows: Sequence[Question],
    batch_size: int,
    sampling: Sampling,
    buckets: Sequence[Bucket],
) -> Iterator[list[tuple[int, dict[str, Any]]]]:
    """(index in `rows`, its prediction row), as answers arrive, for some of the buckets of `plan_buckets`."""
    requests = [question.request for question in rows]
    if task.max_new_tokens:
        for answers in engine.generate(model, requests, batch_size, task.max_new_tokens, sampling, task.stop, buckets):
            yield [(index, _generated(task, rows[index], text)) for index, text in answers]
        return
    for scored in engine.score(model, requests, batch_size, buckets):
        yield [(index, _chosen(task, rows[index], scores)) for index, scores in scored]


def judge(task: Task, example: Example, text: str) -> dict[str, Any]:
    """The fields of a row that follow from a generated text."""
    answer = task.answer(text)
    scores = task.score(answer, example) | (task.score_text(text, example) if task.score_text else {})
    return {"prediction": text, "answer": answer, "scores": scores, "parse_failure": not answer}


def _generated(task: Task, question: Question, text: str) -> dict[str, Any]:
    """The row of a generated answer."""
    return description(task, question.example) | judge(task, question.example, text) | question.prompt_fields


def _chosen(task: Task, question: Question, scores: Scores) -> dict[str, Any]:
    """The row of the most likely choice. Its `_norm` scores belong to the choice that is most likely per token."""
    example = question.example
    sums, lengths = np.array(scores.logprobs), np.array([len(ids) for ids in question.request.choices])
    choice, choice_per_token = (example.choices[int(np.argmax(values))] for values in (sums, sums / lengths))
    normalized = {f"{name}_norm": value for name, value in task.score(choice_per_token, example).items()}
    result = {
        "prediction": choice,
        "scores": task.score(choice, example) | normalized,
        "parse_failure": False,
        "logprobs": [round(value, 5) for value in scores.logprobs],
        "lengths": lengths.tolist(),
    }
    return description(task, example) | result | question.prompt_fields
