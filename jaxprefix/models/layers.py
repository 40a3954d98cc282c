"""The two forms of the layers' weights.

Training reads stacks `[L, ...]`, which `lax.scan` slices: compile time does not depend on depth. Inference reads tuples
of L arrays, because a step of generation would copy the weights of every layer out of a stack. On one H100 such copies
took more than half of the time.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxprefix.models.hooks import Frozen

Layers = Mapping[str, Any]  # stacks or tuples, by the name of a weight


def is_unstacked(layers: Layers) -> bool:
    return isinstance(layers["q_proj"], tuple)


def unstack(frozen: Frozen) -> Frozen:
    """The weights with tuples of L arrays in place of stacks. Weights in this form are returned as they are."""
    layers = frozen["layers"]
    return frozen if is_unstacked(layers) else frozen | {"layers": {name: tuple(layers[name]) for name in layers}}


def layer_of(tree: Any, index: int) -> Any:
    """One layer of a tree of stacks, such as hooks."""
    return jax.tree.map(lambda leaf: leaf[index], tree)


def stack(weight: Array | tuple[Array, ...]) -> Array:
    """The weight of all layers as one array `[L, ...]`."""
    return jnp.stack(weight) if isinstance(weight, tuple) else weight
