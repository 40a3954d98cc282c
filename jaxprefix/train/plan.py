"""Which rows each step takes, and how many steps there are."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from jax.sharding import Mesh

from jaxprefix.encoding import Encoded
from jaxprefix.models.config import DecoderConfig
from jaxprefix.run import RunConfig
from jaxprefix.train.data import Bucket, TrainBatch, buckets, collate, epoch, steps_from


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
    """ValueError where the rows of a micro-batch cannot be divided among the mesh's data devices."""
    rows, data = config.batch // config.accumulate, mesh.shape["data"]
    if rows % data:
        raise ValueError(
            f"{rows} rows a micro-batch cannot be divided among {data} data devices; "
            f"choose --batch a multiple of {data * config.accumulate}"
        )


def check_length(config: RunConfig, sizes: DecoderConfig) -> None:
    """ValueError where rows are longer than the model has positions."""
    if config.max_length > sizes.max_positions:
        positions = sizes.max_positions
        raise ValueError(f"--max-length {config.max_length} is beyond the model's {positions} positions; choose less")
