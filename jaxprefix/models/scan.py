"""The loop over layers: `lax.scan` over a stack of weights, and what of each layer is kept for the backward pass."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import primitives
from jaxtyping import Array

from jaxprefix.errors import InputError
from jaxprefix.models import sharding
from jaxprefix.models.attention import RESIDUALS
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.hooks import Hooks

# What picks one layer's weights from the stack, and lays them out for a product.
PICKING = (primitives.dynamic_slice_p, primitives.squeeze_p, primitives.reshape_p)


def loop(
    config: DecoderConfig,
    stacks: Mapping[str, Any],
    stream: Array,
    hooks: Hooks,
    step: Callable,
    remat: str,
    last: Callable | None = None,
) -> tuple[Array, Any]:
    """Runs the stream through all layers: those below the first hook apart, because nothing there is differentiated,
    and the last one apart where it has a step of its own.

    The body indexes the whole stack: a slice such as `w[2:]` would copy the model.
    """

    def weights(index: Array) -> dict[str, Array]:
        return {
            name: sharding.gathered(name, jax.lax.dynamic_index_in_dim(stack, index, keepdims=False))
            for name, stack in stacks.items()
        }

    def below(stream: Array, index: Array) -> tuple[Array, Any]:
        return step(stream, weights(index), Hooks())

    def above(step: Callable) -> Callable:
        return checkpointed(lambda stream, slices: step(stream, weights(slices[0]), slices[1]), remat)

    indices, first = jnp.arange(config.layers), hooks.first
    end = config.layers if last is None else config.layers - 1
    slices = indices[first:], jax.tree.map(lambda leaf: leaf[first:], hooks.per_layer)
    kept = []
    if first:
        stream, part = jax.lax.scan(below, stream, indices[: min(first, end)])
        kept.append(part)
    if first < end:
        stream, part = jax.lax.scan(above(step), stream, jax.tree.map(lambda leaf: leaf[: end - first], slices))
        kept.append(part)
    if last is not None:
        stream, part = above(last)(stream, jax.tree.map(lambda leaf: leaf[-1], slices))
        kept.append(jax.tree.map(lambda leaf: leaf[None], part))
    return stream, kept[0] if len(kept) == 1 else jax.tree.map(lambda *parts: jnp.concatenate(parts), *kept)


def checkpointed(body: Callable, remat: str) -> Callable:
    """Recomputes a layer in the backward pass: all of it ("full"), all but its matrix products ("dots"; of a kernel for
    attention, its output), or nothing but the picking of its weights ("none"), which would otherwise be kept: the model
    a second time.
    """

    def all_but_weights(primitive: Any, *_: Any, **__: Any) -> bool:
        return primitive not in PICKING

    saveable = jax.checkpoint_policies
    policies = {
        "full": None,
        "dots": saveable.save_from_both_policies(
            saveable.dots_with_no_batch_dims_saveable, saveable.save_only_these_names(RESIDUALS)
        ),
        "none": all_but_weights,
    }
    if remat not in policies:
        raise InputError(f"remat {remat!r} is unknown; expected {', '.join(policies)}")
    return jax.checkpoint(body, policy=policies[remat], prevent_cse=False)
