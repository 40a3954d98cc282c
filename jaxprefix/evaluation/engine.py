"""Examples in, prediction rows out: answers generated, or the likeliest choice, in batches of like length."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxprefix.encoding import Encoded, encode
from jaxprefix.evaluation.model import Model
from jaxprefix.evaluation.predictions import description
from jaxprefix.models.decoder import Batch
from jaxprefix.models.hooks import NEVER
from jaxprefix.tasks.metrics import first_line
from jaxprefix.tasks.task import Example, Task

SHARES = (0.5, 0.9, 1.0)  # prompts are padded to the next of these quantiles of length: three shapes a task


@dataclass(frozen=True)
class Question:
    """An example and its ids; `choices` are the candidates' ids, none where the answer is generated."""

    example: Example
    encoded: Encoded
    choices: tuple[list[int], ...]
    adapter: int = 0  # which of the model's adapters answers


def questions(model: Model, task: Task, examples: Sequence[Example]) -> list[Question]:
    """The examples that fit the run's length, if need be with a shorter context."""
    found, tokenizer = [], model.base.tokenizer
    for example in examples:
        choices = tuple(tokenizer.response_ids(choice) for choice in example.choices)
        # Without a context nothing can be cut: what training would accept is asked.
        room = max(map(len, choices)) if choices else task.max_new_tokens if example.context else None
        if encoded := encode(tokenizer, example, model.max_length, room, model.chat):
            found.append(Question(example, encoded, choices))
    return found


Answered = list[tuple[Question, dict[str, Any]]]  # with the question's row of predictions.jsonl


def predict(model: Model, task: Task, asked: Sequence[Question], size: int) -> Iterator[Answered]:
    """Answers, a batch of at most `size` at a time, short prompts first, whichever adapters they are for."""
    asked = sorted(asked, key=lambda each: len(each.encoded.prompt))
    lengths = [len(each.encoded.prompt) for each in asked]
    edges = sorted({-(-int(np.quantile(lengths, share, method="higher")) // 16) * 16 for share in SHARES})
    width = max((len(ids) for each in asked for ids in each.choices), default=0)
    for edge, low in zip(edges, [-1, *edges], strict=False):
        bucket = [each for each in asked if low < len(each.encoded.prompt) <= edge]
        for start in range(0, len(bucket), size):
            part = bucket[start : start + size]
            batch = _prompts(model, part, edge, size)
            rows = _chosen(model, task, part, batch, width) if width else _generated(model, task, part, batch)
            yield list(zip(part, rows, strict=True))


def _prompts(model: Model, part: Sequence[Question], time: int, size: int) -> Batch:
    """Right-padded; a row without a question repeats the first one, so that it ends no later than that."""
    tokens = np.full((size, time), model.base.tokenizer.pad, np.int32)
    positions = np.full((size, time), NEVER, np.int32)
    for row in range(size):
        ids = part[row if row < len(part) else 0].encoded.prompt
        tokens[row, : len(ids)], positions[row, : len(ids)] = ids, np.arange(len(ids))
    return Batch(model.place(tokens), model.place(positions))


def _adapters(model: Model, part: Sequence[Question], size: int) -> jax.Array | None:
    """Which adapter each row of a batch takes; None where there is one for all."""
    chosen = [each.adapter for each in part] + [part[0].adapter] * (size - len(part))
    return model.place(np.array(chosen, np.int32)) if model.several else None


def _generated(model: Model, task: Task, part: Sequence[Question], batch: Batch) -> list[dict[str, Any]]:
    chosen = _adapters(model, part, batch.tokens.shape[0])
    tokens, counts = jax.device_get(model.generate(model.params, model.frozen, batch, chosen, task.max_new_tokens))
    rows = []
    for question, ids, count in zip(part, tokens, counts, strict=False):
        text = model.base.tokenizer.decode(ids[:count].tolist())
        rows.append(_row(task, question, text, {"parse_failure": not first_line(text)}))
    return rows


def _chosen(model: Model, task: Task, part: Sequence[Question], batch: Batch, width: int) -> list[dict[str, Any]]:
    size, count = batch.tokens.shape[0], max(len(question.choices) for question in part)
    tokens = np.full((count, size, width), model.base.tokenizer.pad, np.int32)
    weights = np.zeros((count, size, width), np.float32)
    for row, question in enumerate(part):
        for choice, ids in enumerate(question.choices):
            tokens[choice, row, : len(ids)], weights[choice, row, : len(ids)] = ids, 1
    candidates = model.place(tokens, 1), model.place(weights, 1)
    found = model.choose(model.params, model.frozen, batch, _adapters(model, part, size), *candidates)
    rows = []
    for question, sums in zip(part, jax.device_get(found).T, strict=False):
        own = sums[: len(question.choices)]
        text = question.example.choices[int(np.argmax(own))]
        rows.append(_row(task, question, text, {"logprobs": [round(float(value), 5) for value in own]}))
    return rows


def _row(task: Task, question: Question, prediction: str, more: dict[str, Any]) -> dict[str, Any]:
    """One line of predictions.jsonl."""
    example = question.example
    answer = {"prediction": prediction, "scores": task.score(prediction, example), "parse_failure": False}
    return description(task, example) | answer | more
