"""Examples in, prediction rows out: answers generated, or the likeliest choice, in batches of like length."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxprefix import mesh as meshes
from jaxprefix.base import Base
from jaxprefix.encoding import Encoded, encode
from jaxprefix.models import decode, score
from jaxprefix.models.adapters import Adapter
from jaxprefix.models.decoder import Batch
from jaxprefix.models.hooks import NEVER
from jaxprefix.tasks.metrics import first_line
from jaxprefix.tasks.task import Example, Task

SHARES = (0.5, 0.9, 1.0)  # prompts are padded to the next of these quantiles of length: three shapes a task


@dataclass(frozen=True)
class Model:
    """An adapted model on a mesh, ready to answer."""

    base: Base
    adapter: Adapter
    params: Any
    frozen: Any
    mesh: Mesh
    max_length: int
    chat: bool

    @cached_property
    def generate(self) -> Any:
        config, ends = self.base.config, self.base.tokenizer.eos

        @partial(jax.jit, static_argnums=3)
        def run(params: Any, frozen: Any, batch: Batch, length: int) -> Any:
            weights, hooks = self.adapter.bind(params, frozen)
            return decode.generate(config, weights, batch, hooks, length, ends)

        return run

    @cached_property
    def choose(self) -> Any:
        @jax.jit
        def run(params: Any, frozen: Any, batch: Batch, choices: Any, weights: Any) -> Any:
            adapted, hooks = self.adapter.bind(params, frozen)
            return score.choice_logprobs(self.base.config, adapted, batch, hooks, choices, weights)

        return run

    def place(self, leaf: np.ndarray, dim: int = 0) -> jax.Array:
        return jax.device_put(leaf, meshes.over_data(self.mesh, dim))


@dataclass(frozen=True)
class Question:
    """An example and its ids; `choices` are the candidates' ids, none where the answer is generated."""

    example: Example
    encoded: Encoded
    choices: tuple[list[int], ...]


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


def predict(model: Model, task: Task, asked: Sequence[Question], size: int) -> Iterator[list[dict[str, Any]]]:
    """Prediction rows, a batch of at most `size` at a time, short prompts first."""
    asked = sorted(asked, key=lambda each: len(each.encoded.prompt))
    lengths = [len(each.encoded.prompt) for each in asked]
    edges = sorted({-(-int(np.quantile(lengths, share, method="higher")) // 16) * 16 for share in SHARES})
    width = max((len(ids) for each in asked for ids in each.choices), default=0)
    for edge, low in zip(edges, [-1, *edges], strict=False):
        bucket = [each for each in asked if low < len(each.encoded.prompt) <= edge]
        for start in range(0, len(bucket), size):
            part = bucket[start : start + size]
            batch = _prompts(model, part, edge, size)
            yield _chosen(model, task, part, batch, size, width) if width else _generated(model, task, part, batch)


def _prompts(model: Model, part: Sequence[Question], time: int, size: int) -> Batch:
    """Right-padded; a row without a question repeats the first one, so that it ends no later than that."""
    tokens = np.full((size, time), model.base.tokenizer.pad, np.int32)
    positions = np.full((size, time), NEVER, np.int32)
    for row in range(size):
        ids = part[row if row < len(part) else 0].encoded.prompt
        tokens[row, : len(ids)], positions[row, : len(ids)] = ids, np.arange(len(ids))
    return Batch(model.place(tokens), model.place(positions))


def _generated(model: Model, task: Task, part: Sequence[Question], batch: Batch) -> list[dict[str, Any]]:
    tokens, counts = jax.device_get(model.generate(model.params, model.frozen, batch, task.max_new_tokens))
    rows = []
    for question, ids, count in zip(part, tokens, counts, strict=False):
        text = model.base.tokenizer.decode(ids[:count].tolist())
        rows.append(_row(task, question, text, {"parse_failure": not first_line(text)}))
    return rows


def _chosen(
    model: Model, task: Task, part: Sequence[Question], batch: Batch, size: int, width: int
) -> list[dict[str, Any]]:
    count = max(len(question.choices) for question in part)
    tokens = np.full((count, size, width), model.base.tokenizer.pad, np.int32)
    weights = np.zeros((count, size, width), np.float32)
    for row, question in enumerate(part):
        for choice, ids in enumerate(question.choices):
            tokens[choice, row, : len(ids)], weights[choice, row, : len(ids)] = ids, 1
    found = model.choose(model.params, model.frozen, batch, model.place(tokens, 1), model.place(weights, 1))
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


def unanswered(task: Task, example: Example) -> dict[str, Any]:
    """The row of a question that does not fit: wrong, because leaving it out would flatter languages of many tokens."""
    zero = dict.fromkeys(task.metrics, 0.0)
    return description(task, example) | {"prediction": "", "scores": zero, "parse_failure": True}


def description(task: Task, example: Example) -> dict[str, Any]:
    """What is asked, as predictions.jsonl has it."""
    return {
        "task": task.name,
        "language": example.language,
        "id": example.id,
        "prompt": example.prompt,
        "references": list(example.references or (example.response,)),
        "choices": list(example.choices),
    }


def same_question(row: dict[str, Any]) -> tuple:
    """Two rows with equal results ask the same; an id alone is not enough, a user's file may have changed."""
    parts = (row[name] for name in ("task", "language", "id", "prompt"))
    return *parts, tuple(row["references"]), tuple(row["choices"])
