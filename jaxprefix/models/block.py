"""One decoder layer: the Flax module, and its projections with the terms that hooks add."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from jaxprefix.models import int8, sharding
from jaxprefix.models.attention import rotate
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.hooks import Bottleneck, Hooks, LowRank
from jaxprefix.models.parameters import BY_NAME, CONSTANTS, bias_name, input_dims, weights_of
from jaxprefix.models.products import int8_matmul, matmul

XIELU_BETA, XIELU_EPSILON = CONSTANTS["mlp.act_fn.beta"], CONSTANTS["mlp.act_fn.eps"]
ACTIVATIONS = {"silu": nn.silu, "gelu_tanh": nn.gelu}

# attend(inputs [B, T, D], q, k, v, hooks of this layer) -> (attention outputs [B, T, N, H], values to stack over
# layers)
Attend = Callable[[Array, Array, Array, Array, Hooks], tuple[Array, Any]]


class Block(nn.Module):
    """One layer: attention and a gated feed-forward block, each after a norm and added to the residual stream.

    With `token_indices`, only the outputs of these positions are computed. Their queries attend to all positions.
    """

    config: DecoderConfig

    @nn.compact
    def __call__(
        self,
        stream: Float[Array, "B T D"],
        turn: tuple[Array, Array],
        attend: Attend,
        hooks: Hooks,
        token_indices: Int[Array, "B M"] | None = None,
    ):
        def weight(name: str) -> Array:
            return self.param(name, nn.initializers.zeros, BY_NAME[name].shape(self.config))

        def apply(name: str, inputs: Array) -> Array:
            scale = self.get_variable("params", int8.scale_name(name))
            outputs = project(inputs, weight(name), input_dims(name), hooks.delta.get(name), scale)
            outputs = outputs + weight(bias_name(name)) if bias_name(name) in own else outputs
            return scaled(outputs, hooks.gain[name]) if name in hooks.gain else outputs

        def norm(name: str | None, inputs: Array) -> Array:
            """The norm; where this family has none, the inputs."""
            return norm_of(config, inputs, weight(name)) if name in own else inputs

        config, own = self.config, weights_of(self.config)
        before_attention, after_attention, before_feed_forward, after_feed_forward = config.norms
        inputs = norm(before_attention, stream)
        asking, asking_turn = jax.tree.map(partial(gather_tokens, token_indices=token_indices), (inputs, turn))
        query = rotate(norm("q_norm", apply("q_proj", asking)), asking_turn)
        key = rotate(norm("k_norm", apply("k_proj", inputs)), turn)
        query = query if config.query_scale == 1 else query * jnp.asarray(config.query_scale, query.dtype)
        read, kept = attend(inputs, query, key, apply("v_proj", inputs), hooks)
        outputs = norm(after_attention, apply("o_proj", read))
        stream = gather_tokens(stream, token_indices) + bottleneck(outputs, hooks.after_attention)
        inputs = norm(before_feed_forward, stream)
        if config.gated:
            active = ACTIVATIONS[config.activation](apply("gate_proj", inputs))
            inner = active * apply("up_proj", inputs)
        else:
            active = inner = xielu(apply("up_proj", inputs), weight("alpha_p"), weight("alpha_n"))
        self.sow("intermediates", "gate", active)  # kept only where `apply` asks for it
        outputs = norm(after_feed_forward, apply("down_proj", inner))
        return stream + bottleneck(outputs, hooks.after_feed_forward), kept


def gather_tokens(leaf: Shaped[Array, "B T ..."], token_indices: Int[Array, "B M"] | None) -> Shaped[Array, "B _ ..."]:
    """The selected positions of each row; all of them if `token_indices` is None."""
    if token_indices is None:
        return leaf
    return jnp.take_along_axis(leaf, token_indices.reshape(*token_indices.shape, *[1] * (leaf.ndim - 2)), axis=1)


def xielu(
    inputs: Float[Array, "..."], positive: Float[Array, " 1"], negative: Float[Array, " 1"]
) -> Float[Array, "..."]:
    """xIELU (arXiv:2411.13010): quadratic above zero and exponential below, with slopes that were learnt."""
    above, below = nn.softplus(positive), XIELU_BETA + nn.softplus(negative)
    curve = jnp.where(
        inputs > 0, above * inputs * inputs, (jnp.expm1(jnp.minimum(inputs, XIELU_EPSILON)) - inputs) * below
    )
    return curve + XIELU_BETA * inputs


def norm_of(config: DecoderConfig, inputs: Float[Array, "... D"], scale: Float[Array, "... D"]) -> Array:
    """Root mean square norm (arXiv:1910.07467) over the last dimension, computed in float32.

    Gemma adds 1 to the scale, and rounds after the product.
    """
    wide = inputs.astype(jnp.float32)
    wide = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + config.norm_epsilon)
    if config.norm_offset:
        return (wide * (config.norm_offset + scale.astype(jnp.float32))).astype(inputs.dtype)
    return scale * wide.astype(inputs.dtype)


def project(inputs: Array, weight: Array, dims: int, delta: LowRank | None = None, scale: Array | None = None) -> Array:
    """Contracts the last `dims` dimensions of inputs and weight, and adds the low-rank term of a hook.

    With `scale`, one number per output, the weight is int8 (int8.py).
    """
    # As matrices: with more dimensions XLA transposes the weight before every product.
    rows, width = inputs.shape[:-dims], math.prod(inputs.shape[-dims:])
    flat, matrix = inputs.reshape(-1, width), weight.reshape(-1, width)
    outputs = matmul(flat, matrix) if scale is None else int8_matmul(flat, matrix)
    outputs = outputs.reshape(*rows, *weight.shape[:-dims])
    outputs = outputs if scale is None else (outputs * scale).astype(inputs.dtype)
    if delta is None:
        return outputs
    if delta.dropout_keys is not None:
        keep = jax.random.bernoulli(delta.dropout_keys, 1 - delta.dropout, inputs.shape)
        inputs = jnp.where(keep, inputs / (1 - delta.dropout), 0).astype(inputs.dtype)
    outputs = outputs + delta.scale * two_products(inputs, delta.a, delta.b, dims)
    return outputs if delta.gain is None else scaled(outputs, delta.gain)


def two_products(
    inputs: Array, first: Array, second: Array, dims: int, between: Callable[[Array], Array] = lambda inner: inner
) -> Array:
    """`second · between(first · inputs)` with weights of an adapter: one pair for the batch, or one for each row."""
    per_row = first.ndim > 1 + dims
    if per_row:
        first, second = sharding.shard_rows(first), sharding.shard_rows(second)
    else:
        first, second = sharding.replicate((first, second))
    multiply = project_rows if per_row else project
    return multiply(between(multiply(inputs, first.astype(inputs.dtype), dims)), second.astype(inputs.dtype), 1)


def project_rows(inputs: Shaped[Array, "B T ..."], weights: Shaped[Array, "B ..."], dims: int) -> Array:
    """`project`, with a weight of its own for each row of the batch."""
    (rows, time), width = inputs.shape[:2], math.prod(inputs.shape[-dims:])
    matrices = weights.reshape(rows, -1, width)
    outputs = jax.lax.dot_general(inputs.reshape(rows, time, width), matrices, (((2,), (2,)), ((0,), (0,))))
    return outputs.reshape(rows, time, *weights.shape[1:-dims])


def scaled(outputs: Shaped[Array, "B T ..."], gain: Float[Array, "..."]) -> Array:
    """The outputs times one factor each, the same for all rows or with a batch dimension. The product is in float32."""
    per_row = gain.ndim > outputs.ndim - 2
    gain = sharding.shard_rows(gain)[:, None] if per_row else sharding.replicate(gain)
    return (outputs * gain).astype(outputs.dtype)


def bottleneck(stream: Array, hook: Bottleneck | None) -> Array:
    if hook is None:
        return stream
    return stream + two_products(stream, hook.down, hook.up, 1, nn.silu)
