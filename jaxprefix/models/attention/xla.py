"""Attention in XLA, for any mask and device. It saves no scores for the backward pass."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float

from jaxprefix.models.attention.call import RESIDUALS

BATCHED = ((0, 1), (0, 1))  # the dimensions B and K of both operands


def attention(
    query: Float[Array, "B T N H"],
    keys: Float[Array, "B S K H"],
    values: Float[Array, "B S K H"],
    mask: Bool[Array, "#B T S"] | None = None,
) -> Float[Array, "B T N H"]:
    """`softmax(q kᵀ/√H) v`, with scores and softmax in float32. Query head n reads key head n // (N/K).

    A query that attends to nothing (padding) gives a mean of values, never NaN.
    """
    # Batch and heads come first in both operands: otherwise XLA transposes the scores and not the queries.
    groups, (keys, values) = keys.shape[2], cache_layout(keys, values)
    return ungroup_queries(_read(group_queries(query, groups), keys, values, mask), query)


def cache_layout(
    keys: Float[Array, "... S K H"], values: Float[Array, "... S K H"]
) -> tuple[Float[Array, "... K H S"], Float[Array, "... K S H"]]:
    """Keys and values in the layouts that their products read without a transposition."""
    return jnp.einsum("...skh->...khs", keys), jnp.einsum("...skh->...ksh", values)


def group_queries(query: Float[Array, "B T N H"], groups: int) -> Float[Array, "B K M H"]:
    """Groups queries by key head: M = G·T queries of the G query heads of each."""
    batch, time, heads, size = query.shape
    apart = query.reshape(batch, time, groups, heads // groups, size)
    return jnp.einsum("btkgh->bkgth", apart).reshape(batch, groups, -1, size)


def ungroup_queries(read: Float[Array, "B K M H"], query: Float[Array, "B T N H"]) -> Float[Array, "B T N H"]:
    """The inverse of `group_queries`, for attention outputs."""
    apart = read.reshape(*read.shape[:2], -1, query.shape[1], query.shape[3])
    return jnp.einsum("bkgth->btkgh", apart).reshape(query.shape)


@jax.custom_vjp
def _read(
    query: Float[Array, "B K M H"],
    keys: Float[Array, "B K H S"],
    values: Float[Array, "B K S H"],
    mask: Bool[Array, "#B T S"] | None,
) -> Float[Array, "B K M H"]:
    return _forward(query, keys, values, mask)[0]


def _forward(query: Array, keys: Array, values: Array, mask: Array | None) -> tuple[Array, tuple]:
    logits = scores(query, keys, mask)
    most = checkpoint_name(jnp.max(logits, axis=-1, keepdims=True), RESIDUALS)
    weights = jnp.exp(logits - most)
    total = checkpoint_name(jnp.sum(weights, axis=-1, keepdims=True), RESIDUALS)
    read = batched_dot(weights.astype(values.dtype), values, 3, 2) / total
    return read.astype(values.dtype), (query, keys, values, mask, most, total)


def _backward(kept: tuple, gradient: Float[Array, "B K M H"]) -> tuple:
    query, keys, values, mask, most, total = kept
    weights = jnp.exp(scores(query, keys, mask) - most) / total
    of_weights = batched_dot(gradient, values, 3, 3)
    mean = jnp.sum(weights * of_weights, axis=-1, keepdims=True)
    of_scores = _hidden_as(0.0, weights * (of_weights - mean), mask)  # also where a query attends to nothing
    of_scores = (of_scores * query.shape[-1] ** -0.5).astype(query.dtype)
    of_query, of_keys = batched_dot(of_scores, keys, 3, 3), batched_dot(query, of_scores, 2, 2)
    of_values = batched_dot(weights.astype(gradient.dtype), gradient, 2, 2)
    return of_query.astype(query.dtype), of_keys.astype(keys.dtype), of_values.astype(values.dtype), None


_read.defvjp(_forward, _backward)


def scores(
    query: Float[Array, "B K M H"], keys: Float[Array, "B K H S"], mask: Bool[Array, "#B T S"] | None
) -> Float[Array, "B K M S"]:
    """`q kᵀ/√H`, and the least float32 where the mask is False."""
    return _hidden_as(jnp.finfo(jnp.float32).min, batched_dot(query, keys, 3, 2) * query.shape[-1] ** -0.5, mask)


def _hidden_as(filling: Any, scores: Float[Array, "B K M S"], mask: Array | None) -> Float[Array, "B K M S"]:
    if mask is None:
        return scores
    heads_apart = scores.reshape(*scores.shape[:2], -1, *mask.shape[1:])
    return jnp.where(mask[:, None, None], heads_apart, filling).reshape(scores.shape)


def batched_dot(left: Array, right: Array, left_dim: int, right_dim: int) -> Array:
    """A batched product with float32 accumulation; contracts one dimension of each operand."""
    dims = (((left_dim,), (right_dim,)), BATCHED)
    return jax.lax.dot_general(left, right, dims, preferred_element_type=jnp.float32)
