"""Examples in, rows of predictions.jsonl out: the engine asked for a task, and its answers scored."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jaxprefix.errors import InputError
from jaxprefix.evaluation.predictions import description
from jaxprefix.inference import engine
from jaxprefix.inference.batching import Bucket, Request
from jaxprefix.inference.engine import Scores
from jaxprefix.inference.model import Model
from jaxprefix.models.sampling import Sampling
from jaxprefix.tasks.encoding import encode
from jaxprefix.tasks.task import Example, Task
from jaxprefix.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Question:
    """An example, the key of its row, and its ids, its context perhaps cut to fit."""

    key: str
    example: Example
    asked: Request
    cut: bool

    def of(self, adapter: int) -> "Question":
        """The question, asked of another of the model's adapters."""
        return replace(self, asked=replace(self.asked, adapter=adapter))


def questions(model: Model, task: Task, examples: Sequence[Example]) -> list[Question]:
    """The examples that fit the model's length, if need be with a shorter context.

    InputError for a choice that has no token.
    """
    found, tokenizer = [], model.base.tokenizer
    for example in examples:
        choices = choice_ids(tokenizer, example)
        # Without a context nothing can be cut: what training would accept is asked.
        room = max(map(len, choices)) if choices else task.max_new_tokens if example.context else None
        if encoded := encode(tokenizer, example, model.max_length, room, model.chat):
            key = description(task, example)["key"]
            found.append(Question(key, example, Request(encoded.prompt, choices), encoded.cut))
    return found


def choice_ids(tokenizer: Tokenizer, example: Example) -> tuple[list[int], ...]:
    """The choices' ids, with the end token only where one choice is the beginning of another and needs it."""
    whole = [tokenizer.response_ids(choice) for choice in example.choices]
    bare = [ids[:-1] for ids in whole]
    for choice, ids in zip(example.choices, bare, strict=True):
        if not ids:
            where = f"question {example.id!r} ({example.language})"
            raise InputError(f"{where}: choice {choice!r} has no token in the model's tokenizer; expected some text")
    begins = any(
        one == other[: len(one)] for place, one in enumerate(bare) for other in bare[:place] + bare[place + 1 :]
    )
    return tuple(whole if begins else bare)


def predict(
    model: Model,
    task: Task,
    rows: Sequence[Question],
    size: int,
    sampling: Sampling,
    parts: Sequence[Bucket],
) -> Iterator[list[tuple[int, dict[str, Any]]]]:
    """(place in `rows`, its prediction), as answers come, of those `parts` of `plan` that are wanted."""
    ids = [question.asked for question in rows]
    if task.max_new_tokens:
        for answered in engine.generate(model, ids, size, task.max_new_tokens, sampling, task.stop, parts):
            yield [(place, _generated(task, rows[place].example, text)) for place, text in answered]
        return
    for scored in engine.score(model, ids, size, parts):
        yield [(place, _chosen(task, rows[place], scores)) for place, scores in scored]


def _generated(task: Task, example: Example, text: str) -> dict[str, Any]:
    answer = task.answer(text)
    scores = task.score(answer, example)
    found = {"prediction": text, "answer": answer, "scores": scores, "parse_failure": not answer}
    return description(task, example) | found


def _chosen(task: Task, question: Question, scores: Scores) -> dict[str, Any]:
    """The likeliest choice, and beside its scores those of the likeliest a token."""
    example = question.example
    sums, lengths = np.array(scores.logprobs), np.array([len(ids) for ids in question.asked.choices])
    likeliest, a_token = (example.choices[int(np.argmax(values))] for values in (sums, sums / lengths))
    by_token = {f"{name}_norm": value for name, value in task.score(a_token, example).items()}
    found = {
        "prediction": likeliest,
        "scores": task.score(likeliest, example) | by_token,
        "parse_failure": False,
        "logprobs": [round(value, 5) for value in scores.logprobs],
        "lengths": lengths.tolist(),
    }
    return description(task, example) | found
