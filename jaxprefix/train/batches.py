"""Encoded rows to batches: a few buckets of length, an order that a seed and a position determine, and a run's steps.

A row is right-padded to its bucket's T tokens; the head reads only the M positions whose next token is learnt.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from flax import struct
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from jaxprefix.errors import InputError
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.decoder import Batch
from jaxprefix.models.hooks import NEVER
from jaxprefix.runs.config import RunConfig
from jaxprefix.tasks.encoding import Encoded

QUANTILES = (0.5, 0.9, 1.0)  # the buckets end at these quantiles of length: at most three shapes, three compilations


@struct.dataclass
class TrainBatch:
    """A micro-batches of B rows each; weights are 1 where a token is learnt and 0 in padding."""

    tokens: Int[Array, "A B T"]
    positions: Int[Array, "A B T"]
    loss_positions: Int[Array, "A B M"]  # where the states stand that predict the targets
    targets: Int[Array, "A B M"]
    loss_mask: Float[Array, "A B M"]

    @property
    def inputs(self) -> Batch:
        return Batch(self.tokens, self.positions, right_padded=True)


@dataclass(frozen=True)
class Bucket:
    """Rows of at most `time` input tokens and `learnt` learnt ones."""

    seq_len: int
    num_targets: int


def buckets(rows: Sequence[Encoded]) -> list[Bucket]:
    """The few shapes that these rows are padded to, from short to long; each holds all that the one before holds."""
    lengths = np.array([_input_length(row) for row in rows])
    found: list[Bucket] = []
    for edge in sorted({_round(np.quantile(lengths, share, method="higher"), 16) for share in QUANTILES}):
        inside = [len(row.response) for row, length in zip(rows, lengths, strict=True) if length <= edge]
        learnt = min(_round(max(inside), 8), edge)
        found.append(Bucket(edge, max([learnt] + [bucket.num_targets for bucket in found])))
    return found


def epoch(
    rows: Sequence[Encoded], shapes: Sequence[Bucket], size: int, seed: int, number: int
) -> list[tuple[Bucket, list[int]]]:
    """The steps of epoch `number`: a bucket and at most `size` row numbers each, every row once, in a seeded order.

    What does not fill a step of its bucket moves to the next longer one; only the longest's last step is partly empty.
    """
    random = np.random.default_rng((seed, number))
    steps, waiting = [], list[int]()
    order = random.permutation(len(rows)).tolist()
    for place, bucket in enumerate(shapes):
        shorter = shapes[place - 1].seq_len if place else -1
        waiting += [row for row in order if shorter < _input_length(rows[row]) <= bucket.seq_len]
        full = len(waiting) if place == len(shapes) - 1 else len(waiting) // size * size
        steps += [(bucket, waiting[start : min(start + size, full)]) for start in range(0, full, size)]
        waiting = waiting[full:]
    return [steps[index] for index in random.permutation(len(steps))]


def steps_from(
    rows: Sequence[Encoded], shapes: Sequence[Bucket], size: int, seed: int, position: int
) -> Iterator[tuple[Bucket, list[int]]]:
    """The steps of a run from step `position` on, epoch after epoch, without end: how a resumed run finds its place."""
    number, ahead = 0, position
    while True:
        steps = epoch(rows, shapes, size, seed, number)
        if ahead < len(steps):
            yield from steps[ahead:]
        ahead, number = max(ahead - len(steps), 0), number + 1


def collate(rows: Sequence[Encoded], bucket: Bucket, size: int, pad: int, accumulate: int = 1) -> TrainBatch:
    """At most `size` rows, padded to the bucket, as `accumulate` micro-batches; missing rows are all padding."""
    tokens = np.full((size, bucket.seq_len), pad, np.int32)
    positions = np.full((size, bucket.seq_len), NEVER, np.int32)
    at = np.zeros((size, bucket.num_targets), np.int32)
    targets = np.zeros((size, bucket.num_targets), np.int32)
    weights = np.zeros((size, bucket.num_targets), np.float32)
    for index, row in enumerate(rows):
        ids = row.prompt + row.response
        time, first = _input_length(row), max(len(row.prompt), 1)  # without a prompt nothing predicts the first token
        learnt = len(ids) - first
        tokens[index, :time] = ids[:-1]
        positions[index, :time] = np.arange(time)
        at[index, :learnt] = np.arange(first - 1, len(ids) - 1)
        targets[index, :learnt] = ids[first:]
        weights[index, :learnt] = 1
    leaves: Any = (tokens, positions, at, targets, weights)  # of numpy: the caller places them
    return TrainBatch(*(leaf.reshape(accumulate, size // accumulate, -1) for leaf in leaves))


def _input_length(row: Encoded) -> int:
    """The last token is only ever a target."""
    return row.length - 1


def _round(number: float, multiple: int) -> int:
    return -(-int(number) // multiple) * multiple


@dataclass(frozen=True)
class Plan:
    """A run's steps, which its settings and rows determine: a step's batch can be made again at any time."""

    config: RunConfig
    rows: Sequence[Encoded]

    @cached_property
    def shapes(self) -> list[Bucket]:
        return buckets(self.rows)

    @cached_property
    def steps(self) -> int:
        if self.config.steps:
            return self.config.steps
        a_pass = len(epoch(self.rows, self.shapes, self.config.batch, self.config.seed, 0))
        return math.ceil((self.config.epochs or 2) * a_pass)

    def batches(self, start: int, pad: int) -> Iterator[TrainBatch]:
        """The batches of steps `start`, `start + 1`, ... up to the last."""
        config = self.config
        steps = steps_from(self.rows, self.shapes, config.batch, config.seed, start)
        for _, (bucket, chosen) in zip(range(start, self.steps), steps, strict=False):
            yield collate([self.rows[row] for row in chosen], bucket, config.batch, pad, config.accumulate)


def check_batch(config: RunConfig, mesh: Mesh) -> None:
    """InputError where the rows of a micro-batch cannot be divided among the mesh's data devices."""
    rows, data = config.batch // config.accumulate, mesh.shape["data"]
    if rows % data:
        raise InputError(
            f"{rows} rows a micro-batch cannot be divided among {data} data devices; "
            f"choose --batch a multiple of {data * config.accumulate}"
        )


def check_length(config: RunConfig, sizes: DecoderConfig) -> None:
    """InputError where rows are longer than the model has positions."""
    if config.max_length > sizes.max_positions:
        positions = sizes.max_positions
        raise InputError(f"--max-length {config.max_length} is beyond the model's {positions} positions; choose less")
