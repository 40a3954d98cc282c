"""Loads weights from a checkpoint onto a mesh. A process reads the parts of its own devices, once."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Sharding
from jaxtyping import PyTree

from jaxprefix.models import decoder, int8
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.hooks import Frozen
from jaxprefix.models.parameters import BY_NAME, Weight, input_dims
from jaxprefix.models.stored import Stored, aligned_empty
from jaxprefix.models.weights import opened

READERS = 4  # threads

Box = tuple[slice, ...]  # a part of a leaf


def load(directory: Path, config: DecoderConfig, like: PyTree | None = None, shardings: PyTree | None = None) -> Frozen:
    """The weights in `directory`.

    `like` is a tree of ShapeDtypeStructs with their dtypes (None: float32), which may have int8 projections and tuples
    of layers instead of stacks (layers.py).
    `shardings` is a tree like it (None: one device). At most one leaf is in memory twice. Raises InputError as
    `weights.opened` does.
    """
    like = decoder.shapes(config) if like is None else like
    if shardings is None:
        shardings = jax.tree.map(lambda _: jax.sharding.SingleDeviceSharding(jax.devices()[0]), like)
    with opened(directory, config) as tensors, ThreadPoolExecutor(READERS) as readers:
        parts = _Parts(tensors, config, readers)

        def load(path: tuple, leaf: PyTree, sharding: PyTree) -> PyTree:
            place = parts.place_layers if isinstance(leaf, tuple) else parts.place
            loaded = place(path, leaf, sharding)  # type: ignore[arg-type]
            return jax.block_until_ready(loaded)  # before the next leaf needs memory

        return jax.tree_util.tree_map_with_path(load, like, shardings, is_leaf=lambda node: isinstance(node, tuple))


class _Parts:
    """Reads parts of leaves, one layer at a time in each of several threads."""

    def __init__(self, tensors: Mapping[str, Stored], config: DecoderConfig, readers: ThreadPoolExecutor) -> None:
        self.tensors, self.config, self.readers = tensors, config, readers
        self.known: dict[str, np.ndarray] = {}  # scales

    def place(self, path: tuple, leaf: jax.ShapeDtypeStruct, sharding: Sharding) -> jax.Array:
        box = _box(sharding, leaf.shape)
        return _placed(self.read(path, leaf, box), box, leaf.shape, sharding)

    def place_layers(
        self, path: tuple, leaves: tuple[jax.ShapeDtypeStruct, ...], shardings: tuple[Sharding, ...]
    ) -> tuple[jax.Array, ...]:
        """Reads a stack, and places each of its layers as an array of its own."""
        shape, count = leaves[0].shape, len(leaves)
        box = _box(shardings[0], shape)
        read = self.read(path, jax.ShapeDtypeStruct((count, *shape), leaves[0].dtype), (slice(0, count), *box))
        return tuple(_placed(layer, box, shape, sharding) for layer, sharding in zip(read, shardings, strict=True))

    def read(self, path: tuple, leaf: jax.ShapeDtypeStruct, box: Box) -> np.ndarray:
        name = path[-1].key
        if int8.is_scale(name):
            return self._scales(int8.projection(name), leaf.shape[1:])[box]
        row = BY_NAME[name]
        into, names = aligned_empty([each.stop - each.start for each in box], leaf.dtype), row.keys(self.config)
        if not row.in_layers:
            self.tensors[names[0]].read(_on_disk(row, leaf.shape, box), into)
            return into
        of_layer = box[1:]
        index, chosen = _on_disk(row, leaf.shape[1:], of_layer), names[box[0]]
        if leaf.dtype != np.int8:
            list(self.readers.map(lambda each, part: self.tensors[each].read(index, part), chosen, into))
            return into
        outputs = len(of_layer) - input_dims(name)
        scales = self._scales(name, leaf.shape[1 : 1 + outputs])[box[: 1 + outputs]]

        def round_layer(each: str, part: np.ndarray, scale: np.ndarray) -> None:
            part[...] = int8.quantize(self.tensors[each][index].reshape(part.shape), scale)

        list(self.readers.map(round_layer, chosen, into, scales))
        return into

    def _scales(self, name: str, outputs: tuple[int, ...]) -> np.ndarray:
        """The scales `[L, *outputs]` of all outputs in all layers. They need all inputs, not a part."""
        if name not in self.known:
            names = BY_NAME[name].keys(self.config)
            scales = self.readers.map(lambda each: int8.scales(self.tensors[each][:]).reshape(outputs), names)
            self.known[name] = np.stack(list(scales))
        return self.known[name]


def _placed(held: np.ndarray, box: Box, shape: tuple[int, ...], sharding: Sharding) -> jax.Array:
    """The sharded leaf, from the part of it in `box`."""

    def part(index: tuple[slice, ...]) -> np.ndarray:
        ends = (each.indices(size) for each, size in zip(index, shape, strict=True))
        near = zip(ends, box, strict=True)
        return held[tuple(slice(start - place.start, stop - place.start) for (start, stop, _), place in near)]

    return jax.make_array_from_callback(shape, sharding, part)  # type: ignore[arg-type]


def _box(sharding: Sharding, shape: tuple[int, ...]) -> Box:
    """The smallest box that contains the shards of all devices of this process."""
    parts = list(sharding.addressable_devices_indices_map(shape).values())
    ends = [[each[dim].indices(size)[:2] for each in parts if each is not None] for dim, size in enumerate(shape)]
    return tuple(slice(min(start for start, _ in dim), max(stop for _, stop in dim)) for dim in ends)


def _on_disk(row: Weight, shape: tuple[int, ...], index: Box) -> Box:
    """A part of one tensor on disk, where heads and their size are one dimension."""
    if (heads := row.folded) is None:
        return index
    size = shape[heads + 1]
    assert index[heads + 1] == slice(0, size)
    folded = slice(index[heads].start * size, index[heads].stop * size)
    return (*index[:heads], folded, *index[heads + 2 :])
