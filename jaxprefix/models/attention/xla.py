"""Attention as XLA compiles it: any mask and any device. No scores are kept for the backward pass."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float

from jaxprefix.models.attention.call import RESIDUALS

BATCHED = ((0, 1), (0, 1))  # the dimensions B and K of both sides of a product


def attention(
    query: Float[Array, "B T N H"],
    keys: Float[Array, "B S K H"],
    values: Float[Array, "B S K H"],
    mask: Bool[Array, "#B T S"] | None = None,
) -> Float[Array, "B T N H"]:
    """`softmax(q kᵀ/√H) v`, scores and softmax in float32; query head n reads key head n // (N/K).

    A row of the mask that is all False (a padded query) gives a mean of values, never NaN.
    """
    batch, time, heads, size = query.shape
    groups = keys.shape[2]
    if time == 1:
        return _of_one(query, keys, values, mask)
    # Batch and heads in front on both sides: otherwise XLA would rather turn the scores over than the queries.
    grouped = jnp.einsum("btkgh->bkgth", query.reshape(batch, time, groups, heads // groups, size))
    laid_out = grouped.reshape(batch, groups, -1, size), jnp.swapaxes(keys, 1, 2), jnp.swapaxes(values, 1, 2)
    read = _read(*laid_out, mask).reshape(grouped.shape)
    return jnp.einsum("bkgth->btkgh", read).reshape(query.shape)


@jax.custom_vjp
def _read(
    query: Float[Array, "B K M H"],
    keys: Float[Array, "B K S H"],
    values: Float[Array, "B K S H"],
    mask: Bool[Array, "#B T S"] | None,
) -> Float[Array, "B K M H"]:
    """The M queries of a key head are its G query heads times the T queries of the mask."""
    return _forward(query, keys, values, mask)[0]


def _forward(query: Array, keys: Array, values: Array, mask: Array | None) -> tuple[Array, tuple]:
    scores = _scores(query, keys, mask)
    most = checkpoint_name(jnp.max(scores, axis=-1, keepdims=True), RESIDUALS)
    weights = jnp.exp(scores - most)
    total = checkpoint_name(jnp.sum(weights, axis=-1, keepdims=True), RESIDUALS)
    read = _product(weights.astype(values.dtype), values, 3, 2) / total
    return read.astype(values.dtype), (query, keys, values, mask, most, total)


def _backward(kept: tuple, gradient: Float[Array, "B K M H"]) -> tuple:
    query, keys, values, mask, most, total = kept
    weights = jnp.exp(_scores(query, keys, mask) - most) / total
    of_weights = _product(gradient, values, 3, 3)
    mean = jnp.sum(weights * of_weights, axis=-1, keepdims=True)
    of_scores = _hidden_as(0.0, weights * (of_weights - mean), mask)  # also where a query sees nothing
    of_scores = (of_scores * query.shape[-1] ** -0.5).astype(query.dtype)
    of_query, of_keys = _product(of_scores, keys, 3, 2), _product(of_scores, query, 2, 2)
    of_values = _product(weights.astype(gradient.dtype), gradient, 2, 2)
    return of_query.astype(query.dtype), of_keys.astype(keys.dtype), of_values.astype(values.dtype), None


_read.defvjp(_forward, _backward)


def _scores(query: Array, keys: Array, mask: Array | None) -> Float[Array, "B K M S"]:
    return _hidden_as(jnp.finfo(jnp.float32).min, _product(query, keys, 3, 3) * query.shape[-1] ** -0.5, mask)


def _hidden_as(filling: Any, scores: Float[Array, "B K M S"], mask: Array | None) -> Float[Array, "B K M S"]:
    if mask is None:
        return scores
    heads_apart = scores.reshape(*scores.shape[:2], -1, *mask.shape[1:])
    return jnp.where(mask[:, None, None], heads_apart, filling).reshape(scores.shape)


def _product(left: Array, right: Array, left_dim: int, right_dim: int) -> Array:
    """Contracts a dimension of each side, in float32."""
    dims = (((left_dim,), (right_dim,)), BATCHED)
    return jax.lax.dot_general(left, right, dims, preferred_element_type=jnp.float32)


def _of_one(query: Array, keys: Array, values: Array, mask: Array | None) -> Array:
    """`attention` of one query a row: its scores as sums, where a matrix product would first turn all keys over."""
    batch, _, heads, size = query.shape
    grouped = query.reshape(batch, 1, keys.shape[2], heads // keys.shape[2], size)
    scores = jnp.sum((grouped * keys[:, :, :, None]).astype(jnp.float32), axis=-1) * size**-0.5  # [B, S, K, G]
    if mask is not None:
        scores = jnp.where(mask[:, 0, :, None, None], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=1).astype(values.dtype)
    return jnp.einsum("bskg,bskh->bkgh", weights, values).reshape(query.shape)
