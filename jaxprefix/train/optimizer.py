"""The optimizer and its masks.

The step differentiates and updates the adapter tree alone. `adapter_only` is for your own loop over a joint tree.
"""

from collections.abc import Hashable, Mapping

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, PyTree

from jaxprefix.models.adapters import METHODS
from jaxprefix.models.hooks import Params

NO_DECAY = frozenset[str]().union(*(method.no_decay for method in METHODS))  # the names of leaves without weight decay


def adapter_only(transformation: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """`transformation` for the "adapter" branch of a joint tree `{"frozen": ..., "adapter": ...}`.

    Frozen leaves get no moments, no update and no share in the clip norm of `transformation`. (The plain
    `optax.masked` would add the raw gradients to them.)
    """
    branches: Mapping[Hashable, optax.GradientTransformation] = {
        "adapter": transformation,
        "frozen": optax.set_to_zero(),
    }
    return optax.partition(branches, {"adapter": "adapter", "frozen": "frozen"})


def weight_decay_mask(params: Params) -> PyTree[bool]:
    """A mask with the structure of `params`: True for leaves with weight decay."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key not in NO_DECAY, params)


def schedule(learning_rate: Array | float, steps: int, warmup: float) -> optax.Schedule:
    """Rises linearly for the fraction `warmup` of the steps, then falls linearly. No step has a rate of 0."""
    rising = max(round(steps * warmup), 1)

    def rate(count: ArrayLike) -> Array:
        up, down = (count + 1) / rising, (steps - count) / max(steps - rising, 1)
        return learning_rate * jnp.clip(jnp.minimum(up, down), 0, 1)

    return rate


def adamw(
    learning_rate: optax.Schedule, weight_decay: float, clip: float, lr_multipliers: Mapping[str, float] | None = None
) -> optax.GradientTransformation:
    """AdamW (arXiv:1711.05101) with betas (0.9, 0.95), after clipping by the norm of the adapter's gradient.

    `lr_multipliers` scale the learning rate of each member of a sum. The settings come from public code for the study's
    recipe (LLaMA-Adapter, arXiv:2303.16199).
    """
    return optax.chain(
        optax.clip_by_global_norm(clip) if clip else optax.identity(),
        optax.adamw(learning_rate, b1=0.9, b2=0.95, weight_decay=weight_decay, mask=weight_decay_mask),
        _scaled(lr_multipliers) if lr_multipliers else optax.identity(),
    )


def _scaled(lr_multipliers: Mapping[str, float]) -> optax.GradientTransformation:
    """Scales the updates of each member in the tree `{member: ...}` of a sum."""

    def scale(updates: PyTree, _: PyTree) -> PyTree:
        return {name: optax.tree.scale(multiplier, updates[name]) for name, multiplier in lr_multipliers.items()}

    return optax.stateless(scale)
