"""The least time of a step on a chip: no step is faster than its products, its memory or its links.

The three work at the same time, so the slowest of them binds. What a step must move through the memory of a device are
its weights, which are read forward and, above the first adapted layer, backward, in every micro-batch, and the adapter
and the state of the optimizer, which are read and written once. Activations are not counted: caches may keep them.
"""

import math
from dataclasses import dataclass

import jax
from jax.sharding import Mesh
from jaxtyping import PyTree

from jaxprefix.models.adapters import IMPORTANCE, FullFineTuning
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.decoder import Frozen
from jaxprefix.runs.config import RunConfig
from jaxprefix.train.dry_run.chips import Chip
from jaxprefix.train.step import State

SHARE = 0.3  # of the least time's rate, which training is assumed to reach


@dataclass(frozen=True)
class Work:
    """What one device has to do."""

    flops: float  # of matrix products
    bytes: float  # read from and written to its memory
    received: float = 0  # bytes from other devices

    def times(self, count: float) -> "Work":
        return Work(count * self.flops, count * self.bytes, count * self.received)


@dataclass(frozen=True)
class LeastTime:
    """The seconds that each part takes at the rate of the chip's maker."""

    products: float
    memory: float
    collectives: float

    @property
    def seconds(self) -> float:
        return max(self.products, self.memory, self.collectives)

    @property
    def bound(self) -> str:
        """The part that binds."""
        parts = {"products": self.products, "memory": self.memory, "collectives": self.collectives}
        return max(parts, key=lambda part: parts[part])


def least_time(chip: Chip, work: Work) -> LeastTime:
    return LeastTime(work.flops / chip.flops, work.bytes / chip.bandwidth, work.received / chip.links)


def weight_reads(config: RunConfig, sizes: DecoderConfig, mesh: Mesh, frozen: Frozen, state: State) -> float:
    """The bytes of weights that a device reads in a micro-batch: of the layers, gathered over `data`, and of its part
    of the head.

    `frozen` and `state` are those of the step, and may be abstract. An embedding that is not the head is hardly read.
    """
    hooks = jax.eval_shape(lambda params, frozen: config.adapter.bind(sizes, params, frozen)[1], state.params, frozen)
    read = state.params if isinstance(config.adapter, FullFineTuning) else frozen
    unread = {"layers", IMPORTANCE} | ({"embed_tokens"} if "lm_head" in read else set())
    layers = _bytes(read["layers"]) / mesh.shape["model"]
    head = _bytes({name: leaf for name, leaf in read.items() if name not in unread}) / mesh.size
    return 2 * (layers + head) - layers * hooks.first_adapted_layer / sizes.layers


def _bytes(tree: PyTree) -> int:
    return sum(leaf.dtype.itemsize * math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
