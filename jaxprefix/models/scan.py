"""The loop over layers, and what each layer saves for the backward pass."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import primitives
from jaxtyping import Array

from jaxprefix.errors import InputError
from jaxprefix.models import products, sharding
from jaxprefix.models.attention import RESIDUALS
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.hooks import Hooks
from jaxprefix.models.layers import Layers, is_unstacked, layer_of

# The operations that slice the weights of one layer from the stack and reshape them for a product.
SLICING = (primitives.dynamic_slice_p, primitives.squeeze_p, primitives.reshape_p)
CUDNN_FORWARD = "dot_product_attention_fwd_wrapper"  # JAX's primitive, which names none of its results


def apply_layers(
    config: DecoderConfig,
    layers: Layers,
    stream: Array,
    hooks: Hooks,
    step: Callable,
    remat: str,
    last: Callable | None = None,
) -> tuple[Array, Any]:
    """Applies all layers to the residual stream, the last one with `last` if that is given.

    Returns what `step(stream, weights, hooks of the layer, index in config.kinds)` returns: the stream, and the other
    values of all layers, in a stack if the weights are stacks, else in a tuple (layers.py).
    """
    if is_unstacked(layers):
        return _unrolled(config, layers, stream, hooks, step, last)
    return _scanned(config, layers, stream, hooks, step, remat, last)


def _unrolled(
    config: DecoderConfig, layers: Layers, stream: Array, hooks: Hooks, step: Callable, last: Callable | None
) -> tuple[Array, tuple]:
    kept = []
    for layer in range(config.layers):
        # The barrier keeps XLA from gathering or converting the weights of all layers at once, before the first layer.
        weights, _ = jax.lax.optimization_barrier(({name: parts[layer] for name, parts in layers.items()}, stream))
        weights = {name: sharding.gather_weight(name, weight) for name, weight in weights.items()}
        is_adapted = layer >= hooks.first_adapted_layer
        layer_hooks = layer_of(hooks.per_layer, layer) if is_adapted else Hooks()
        if isinstance(hooks.cache, tuple):
            layer_hooks = layer_hooks.replace(cache=hooks.cache[layer])  # type: ignore[attr-defined]
        apply = last if last is not None and layer == config.layers - 1 else step
        stream, part = apply(stream, weights, layer_hooks, config.kind_of_layer[layer])
        kept.append(part)
    return stream, tuple(kept)


def _scanned(
    config: DecoderConfig,
    stacks: Layers,
    stream: Array,
    hooks: Hooks,
    step: Callable,
    remat: str,
    last: Callable | None,
) -> tuple[Array, Any]:
    """A loop for the layers below the first hook, which are not differentiated, and one for those above.

    The last layer is outside the loop if it has a function of its own. The loop indexes the whole stack: a slice such
    as `w[2:]` copies it.
    """

    def weights(index: Array) -> dict[str, Array]:
        return {
            name: sharding.gather_weight(name, jax.lax.dynamic_index_in_dim(stack, index, keepdims=False))
            for name, stack in stacks.items()
        }

    def kind(index: Array) -> Array | int:
        return jnp.asarray(config.kind_of_layer)[index] if len(config.kinds) > 1 else 0

    def below(stream: Array, index: Array) -> tuple[Array, Any]:
        return step(stream, weights(index), Hooks(), kind(index))

    def above(step: Callable) -> Callable:
        def body(stream: Array, slices: tuple[Array, Hooks]) -> tuple[Array, Any]:
            return step(stream, weights(slices[0]), slices[1], kind(slices[0]))

        return checkpointed(body, remat)

    indices, first = jnp.arange(config.layers), hooks.first_adapted_layer
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
    """A layer that is recomputed in the backward pass.

    `remat` is "full" (everything is recomputed), "dots" (all but attention outputs and large products) or "none" (only
    the slicing of its weights, which would otherwise be saved: a second copy of the model).
    """

    def all_but_weights(primitive: Any, *_: Any, **__: Any) -> bool:
        return primitive not in SLICING

    def is_large(primitive: Any, *inputs: Any, **settings: Any) -> bool:
        if primitive is not primitives.dot_general_p:
            return False
        (contracted, _), (per_row, _) = settings["dimension_numbers"]
        is_result = settings["preferred_element_type"] in (None, inputs[0].dtype)  # otherwise the result has a name
        terms = math.prod(inputs[0].shape[dim] for dim in contracted)
        return is_result and not per_row and terms > products.FEW_TERMS

    def cudnn(primitive: Any, *_: Any, **__: Any) -> bool:
        return primitive.name == CUDNN_FORWARD

    saveable = jax.checkpoint_policies
    attention = saveable.save_from_both_policies(saveable.save_only_these_names(RESIDUALS, products.PRODUCT), cudnn)
    policies = {
        "full": None,
        "dots": saveable.save_from_both_policies(is_large, attention),
        "none": all_but_weights,
    }
    if remat not in policies:
        raise InputError(f"remat {remat!r} is unknown; expected {', '.join(policies)}")
    return jax.checkpoint(body, policy=policies[remat], prevent_cse=False)
