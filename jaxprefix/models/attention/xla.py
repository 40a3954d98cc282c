"""Attention as XLA compiles it: any mask, any device, and the scores in memory."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def attention(
    query: Float[Array, "B T N H"],
    keys: Float[Array, "B S K H"],
    values: Float[Array, "B S K H"],
    mask: Bool[Array, "B T S"] | None = None,
) -> Float[Array, "B T N H"]:
    """`softmax(q kᵀ/√H) v`, scores and softmax in float32; query head n reads key head n // (N/K).

    A row of the mask that is all False (a padded query) gives a mean of values, never NaN.
    """
    batch, time, heads, size = query.shape
    if time == 1:
        return _of_one(query, keys, values, mask)
    grouped = query.reshape(batch, time, keys.shape[2], heads // keys.shape[2], size)
    scores = jnp.einsum("btkgh,bskh->bkgts", grouped, keys, preferred_element_type=jnp.float32) * size**-0.5
    if mask is not None:
        scores = jnp.where(mask[:, None, None], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(values.dtype)
    return jnp.einsum("bkgts,bskh->btkgh", weights, values).reshape(query.shape)


def _of_one(query: Array, keys: Array, values: Array, mask: Array | None) -> Array:
    """`attention` of one query a row: its scores as sums, where a matrix product would first turn all keys over."""
    batch, _, heads, size = query.shape
    grouped = query.reshape(batch, 1, keys.shape[2], heads // keys.shape[2], size)
    scores = jnp.sum((grouped * keys[:, :, :, None]).astype(jnp.float32), axis=-1) * size**-0.5  # [B, S, K, G]
    if mask is not None:
        scores = jnp.where(mask[:, 0, :, None, None], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=1).astype(values.dtype)
    return jnp.einsum("bskg,bskh->bkgh", weights, values).reshape(query.shape)
