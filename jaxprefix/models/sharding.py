"""How weights, adapters and activations are sharded over the mesh that a program is traced for.

Batches are sharded over `data`. The weights of a layer are sharded over both axes and gathered over `data` when the
layer is computed: left alone, the partitioner gives every device all rows instead. Embedding and head are never
gathered. The few states that the head reads are replicated.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.tree_util import DictKey
from jaxtyping import Array, PyTree

from jaxprefix.errors import InputError
from jaxprefix.models.parameters import BY_NAME, Weight

Axes = tuple[str, ...]

# A dimension is sharded over the first of these axes that divide it, and D of a matrix over the remaining axes.
# Heads that `model` does not divide are replicated: RoPE needs whole heads.
CHOICES: Mapping[str, tuple[Axes, ...]] = {
    "V": (("model",), ()),
    "N": (("model",), ()),
    "K": (("model",), ()),
    "F": (("model",),),
}
LOGITS: tuple[Axes, ...] = (("model", "data"), ("model",), ())  # of V in the head

# Leaves of adapters are replicated up to SHARD_ABOVE numbers (16 MiB in float32, three times that with the optimizer)
# and sharded over all devices beyond.
SHARD_ABOVE = 2**22


def param_shardings(mesh: Mesh, shapes: PyTree) -> PyTree:
    """The sharding of each leaf of weights or adapter parameters. InputError if a dimension does not divide."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: NamedSharding(mesh, partition_spec(mesh, path, leaf.shape)), shapes
    )


def partition_spec(mesh: Mesh, path: tuple, shape: tuple[int, ...]) -> P:
    """The PartitionSpec of the leaf at `path`."""
    name = next(part.key for part in reversed(path) if isinstance(part, DictKey))  # in a tuple of layers, of the tuple
    if name not in BY_NAME:
        return _adapter_spec(mesh, shape)
    layers = [()] * (len(shape) - len(BY_NAME[name].dims))  # their stack is whole
    shared_by = (*layers, *mesh_axes(name, shape[len(layers) :], mesh.shape))
    for shared, size in zip(shared_by, shape, strict=True):
        if size % (count := num_shards(shared, mesh.shape)):
            given = "x".join(str(size) for size in mesh.shape.values())
            raise InputError(
                f"--mesh {given}: {name} {list(shape)} cannot be divided by {count} ({' and '.join(shared)}) at its "
                f"{size}; choose a divisor"
            )
    return _partition(shared_by)


def _adapter_spec(mesh: Mesh, shape: tuple[int, ...]) -> P:
    """Shards a large leaf at its widest dimension that divides, but never over layers, which the loop slices."""
    fitting = [dim for dim in range(1, len(shape)) if shape[dim] % mesh.size == 0]
    if math.prod(shape) < SHARD_ABOVE or not fitting:
        return P()
    widest = max(fitting, key=lambda dim: shape[dim])
    return P(*[None] * widest, ("data", "model"))


def mesh_axes(name: str, shape: tuple[int, ...], sizes: Mapping[str, int]) -> tuple[Axes, ...]:
    """The mesh axes of each dimension of a weight (of one layer), for a mesh of these `sizes`.

    The axes may not divide the feature and input dimensions: the caller checks that.
    """
    taken: Axes = ()
    row = BY_NAME[name]
    for dim, size in zip(row.dims, shape, strict=True):
        if dim in CHOICES:
            choices = LOGITS if name == "lm_head" else CHOICES[dim]
            taken = next((choice for choice in choices if size % num_shards(choice, sizes) == 0), choices[-1])
    left = tuple(axis for axis in ("data", "model") if axis not in taken)
    return tuple(taken if dim in CHOICES else left if _is_gathered(row, dim) else () for dim in row.dims)


def _is_gathered(row: Weight, dim: str) -> bool:
    """Whether the dimension is D of a matrix, which `gather_weight` gathers."""
    return dim == "D" and row.role in ("embedding", "projection")


def num_shards(axes: Axes, sizes: Mapping[str, int]) -> int:
    """The number of shards of a dimension with these axes."""
    return math.prod(sizes[axis] for axis in axes)


def _partition(axes: tuple[Axes, ...]) -> P:
    return P(*(names if len(names) > 1 else names[0] if names else None for names in axes))


def is_sharded() -> bool:
    """Whether the program is traced for several devices."""
    return math.prod(_sizes().values()) > 1


def shard_rows(leaf: Array, dim: int = 0) -> Array:
    """Shards dimension `dim` over `data`."""
    sizes = _sizes()
    return leaf if not sizes or leaf.shape[dim] % sizes["data"] else _at(leaf, *[()] * dim, ("data",))


def shard_cache(leaf: Array) -> Array:
    """Shards keys `[B, K, H, S]` or values `[B, K, S, H]`: rows over `data`, and heads over `model` if it divides."""
    sizes = _sizes()
    if not sizes or leaf.shape[0] % sizes["data"]:
        return leaf
    return _at(leaf, ("data",), () if leaf.shape[1] % sizes["model"] else ("model",))


def shard_embeddings(table: Array, stream: Array) -> Array:
    """Shards embeddings `[B, T, D]` by rows. Before that each device has its part of D, as in the table."""
    if not (sizes := _sizes()):
        return stream
    return shard_rows(_at(stream, (), (), mesh_axes("embed_tokens", table.shape, sizes)[1]))


def gather_weight(name: str, leaf: Array) -> Array:
    """Gathers the input dimension of the weight of one layer."""
    if not (sizes := _sizes()):
        return leaf
    axes = zip(BY_NAME[name].dims, mesh_axes(name, leaf.shape, sizes), strict=True)
    return _at(leaf, *(() if _is_gathered(BY_NAME[name], dim) else names for dim, names in axes))


def replicate(tree: PyTree) -> PyTree:
    """Replicates a tree on every device."""
    return jax.lax.with_sharding_constraint(tree, P()) if _sizes() else tree


def shard_head(table: Array) -> Array:
    """Shards the head `[V, D]` by tokens; a tied embedding is stored with another sharding."""
    return _at(table, *mesh_axes("lm_head", table.shape, sizes)) if (sizes := _sizes()) else table


def shard_logits(table: Array, scores: Array) -> Array:
    """Shards logits `[..., V]` as the head is."""
    if not (sizes := _sizes()):
        return scores
    return _at(scores, *[()] * (scores.ndim - 1), mesh_axes("lm_head", table.shape, sizes)[0])


def _sizes() -> Mapping[str, int]:
    return jax.sharding.get_abstract_mesh().shape


def _at(leaf: Array, *axes: Axes) -> Any:
    return jax.lax.with_sharding_constraint(leaf, _partition(axes))
