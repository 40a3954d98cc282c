"""Batches of encoded rows: a few buckets of length, and an order that depends only on the seed.

A row is right-padded to the T tokens of its bucket. The loss needs the M positions whose next token is learnt.
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
from jaxprefix.runs.config import RunConfig
from jaxprefix.tasks.encoding import Encoded

QUANTILES = (0.5, 0.9, 1.0)  # the lengths where buckets end: at most three shapes and three compilations


@struct.dataclass
class TrainBatch:
    """A micro-batches of B rows each. The loss mask is 1 for a learnt token and 0 for padding."""

    tokens: Int[Array, "A B T"]
    lengths: Int[Array, "A B"]  # input tokens of each row, which is right-padded
    loss_positions: Int[Array, "A B M"]  # the positions whose next tokens are the targets
    targets: Int[Array, "A B M"]
    loss_mask: Float[Array, "A B M"]

    @property
    def inputs(self) -> Batch:
        return Batch.right_padded(self.tokens, self.lengths)


@dataclass(frozen=True)
class Bucket:
    """The shape of rows with at most `seq_len` input tokens and `num_targets` learnt tokens."""

    seq_len: int
    num_targets: int


def buckets(rows: Sequence[Encoded]) -> list[Bucket]:
    """The few shapes that these rows are padded to, from short to long. A longer one also fits all shorter rows."""
    lengths = np.array([_input_length(row) for row in rows])
    shapes: list[Bucket] = []
    for edge in sorted({_round(np.quantile(lengths, share, method="higher"), 16) for share in QUANTILES}):
        inside = [len(row.response) for row, length in zip(rows, lengths, strict=True) if length <= edge]
        learnt = min(_round(max(inside), 8), edge)
        shapes.append(Bucket(edge, max([learnt] + [shape.num_targets for shape in shapes])))
    return shapes


def epoch(
    rows: Sequence[Encoded], shapes: Sequence[Bucket], size: int, seed: int, number: int
) -> list[tuple[Bucket, list[int]]]:
    """The steps of epoch `number`: a bucket and at most `size` row indices each. The seed determines the order.

    Rows that do not fill a step of their bucket move to the next longer one. Only the last step of the longest bucket
    may have fewer rows.
    """
    random = np.random.default_rng((seed, number))
    steps, waiting = [], list[int]()
    order = random.permutation(len(rows)).tolist()
    for index, bucket in enumerate(shapes):
        shorter = shapes[index - 1].seq_len if index else -1
        waiting += [row for row in order if shorter < _input_length(rows[row]) <= bucket.seq_len]
        full = len(waiting) if index == len(shapes) - 1 else len(waiting) // size * size
        steps += [(bucket, waiting[start : min(start + size, full)]) for start in range(0, full, size)]
        waiting = waiting[full:]
    return [steps[index] for index in random.permutation(len(steps))]


def steps_from(
    rows: Sequence[Encoded], shapes: Sequence[Bucket], size: int, seed: int, position: int
) -> Iterator[tuple[Bucket, list[int]]]:
    """The steps of a run after the first `position` steps, epoch after epoch, without an end."""
    number, skip = 0, position
    while True:
        steps = epoch(rows, shapes, size, seed, number)
        yield from steps[skip:]
        skip, number = max(skip - len(steps), 0), number + 1


def collate(rows: Sequence[Encoded], bucket: Bucket, size: int, pad: int, accumulate: int = 1) -> TrainBatch:
    """At most `size` rows in numpy arrays, padded to the bucket, as `accumulate` micro-batches.

    Missing rows are all padding.
    """
    tokens = np.full((size, bucket.seq_len), pad, np.int32)
    lengths = np.zeros(size, np.int32)
    loss_positions = np.zeros((size, bucket.num_targets), np.int32)
    targets = np.zeros((size, bucket.num_targets), np.int32)
    loss_mask = np.zeros((size, bucket.num_targets), np.float32)
    for index, row in enumerate(rows):
        ids = row.prompt + row.response
        lengths[index] = length = _input_length(row)
        first = max(len(row.prompt), 1)  # without a prompt, nothing predicts the first token
        learnt = len(ids) - first
        tokens[index, :length] = ids[:-1]
        loss_positions[index, :learnt] = np.arange(first - 1, len(ids) - 1)
        targets[index, :learnt] = ids[first:]
        loss_mask[index, :learnt] = 1
    leaves: Any = (tokens, lengths, loss_positions, targets, loss_mask)
    return TrainBatch(*(leaf.reshape(accumulate, size // accumulate, *leaf.shape[1:]) for leaf in leaves))


def _input_length(row: Encoded) -> int:
    """The input tokens of a row: the last token is only a target."""
    return row.length - 1


def _round(number: float, multiple: int) -> int:
    return -(-int(number) // multiple) * multiple


@dataclass(frozen=True)
class Plan:
    """The steps of a run. They depend only on its settings and rows, so the batch of any step can be made again."""

    config: RunConfig
    rows: Sequence[Encoded]

    @cached_property
    def shapes(self) -> list[Bucket]:
        return buckets(self.rows)

    @cached_property
    def steps(self) -> int:
        if self.config.steps:
            return self.config.steps
        per_epoch = len(epoch(self.rows, self.shapes, self.config.batch, self.config.seed, 0))
        return math.ceil((self.config.epochs or 2) * per_epoch)

    def batches(self, start: int, pad: int) -> Iterator[TrainBatch]:
        """The batches of the steps `start`, `start + 1`, ... up to the last step."""
        config = self.config
        steps = steps_from(self.rows, self.shapes, config.batch, config.seed, start)
        for _, (bucket, indices) in zip(range(start, self.steps), steps, strict=False):
            yield collate([self.rows[index] for index in indices], bucket, config.batch, pad, config.accumulate)


def check_batch(config: RunConfig, mesh: Mesh) -> None:
    """InputError if the rows of a micro-batch cannot be divided among the data devices of the mesh."""
    rows, data = config.batch // config.accumulate, mesh.shape["data"]
    if rows % data:
        raise InputError(
            f"{rows} rows per micro-batch cannot be divided among {data} data devices; "
            f"choose --batch a multiple of {data * config.accumulate}"
        )


def check_length(config: RunConfig, sizes: DecoderConfig) -> None:
    """InputError if rows can be longer than the model's positions."""
    if config.max_length > sizes.max_positions:
        positions = sizes.max_positions
        raise InputError(f"--max-length {config.max_length} is beyond the model's {positions} positions; choose less")
