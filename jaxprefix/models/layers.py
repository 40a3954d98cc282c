"""The two forms of the layers' weights and hooks.

Training reads stacks `[L, ...]`, which `lax.scan` slices: compile time does not depend on depth. Inference reads tuples
of L arrays, because a step of generation would copy the weights of every layer out of a stack. On one H100 such copies
took more than half of the time.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxprefix.models.hooks import Frozen, Hooks

Layers = Mapping[str, Any]  # stacks or tuples, by the name of a weight


def is_unstacked(layers: Layers) -> bool:
    return isinstance(layers["q_proj"], tuple)


def unstack(frozen: Frozen) -> Frozen:
    """The weights with tuples of L arrays in place of stacks. Weights in this form are returned as they are."""
    layers = frozen["layers"]
    return frozen if is_unstacked(layers) else frozen | {"layers": {name: split(layers[name]) for name in layers}}


def split(weight: Array | tuple[Array, ...]) -> tuple[Array, ...]:
    """The weight of all layers as one array per layer."""
    return tuple(weight)


def unstack_hooks(hooks: Hooks) -> Hooks:
    """The hooks with tuples of L arrays in place of stacks, to be made outside of a loop that calls the decoder."""
    apart = jax.tree.map(split, hooks.per_layer, is_leaf=_is_split)
    return apart.replace(prompt=hooks.prompt, cache=hooks.cache)


def layer_of(tree: Any, index: int) -> Any:
    """One layer of a tree of stacks or tuples, such as hooks."""
    return jax.tree.map(lambda leaf: leaf[index], tree, is_leaf=_is_split)


def _is_split(node: Any) -> bool:
    return isinstance(node, tuple)


def stack(weight: Array | tuple[Array, ...]) -> Array:
    """The weight of all layers as one array `[L, ...]`."""
    return jnp.stack(weight) if isinstance(weight, tuple) else weight
