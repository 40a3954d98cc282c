"""Grouped-query attention; which kernel computes it is chosen here and nowhere else."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxprefix.models.config import Rope


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


def rotation(rope: Rope, size: int, positions: Array) -> tuple[Array, Array]:
    """Cosines and sines `[B, T, H/2]` (float32) of the angles that RoPE turns head pairs by at `positions` `[B, T]`."""
    frequencies = rope.theta ** -(jnp.arange(0, size, 2, dtype=jnp.float32) / size)
    if rope.kind == "linear":
        frequencies /= rope.factor
    if rope.kind == "llama3":
        frequencies = _llama3(rope, frequencies)
    angles = positions[..., None].astype(jnp.float32) * frequencies
    return jnp.cos(angles), jnp.sin(angles)


def _llama3(rope: Rope, frequencies: Array) -> Array:
    """Llama 3.1: waves longer than original context / low factor are stretched, short ones kept, a blend between."""
    turns = rope.original_positions * frequencies / (2 * jnp.pi)
    blend = (turns - rope.low_frequency_factor) / (rope.high_frequency_factor - rope.low_frequency_factor)
    blend = jnp.clip(blend, 0, 1)
    return (1 - blend) * frequencies / rope.factor + blend * frequencies


def rotate(heads: Float[Array, "B T G H"], turn: tuple[Array, Array]) -> Float[Array, "B T G H"]:
    """Turns each pair (j, j + H/2) of every head by its position's angle: the layout of Hugging Face checkpoints."""
    cosine, sine = (part[:, :, None].astype(heads.dtype) for part in turn)
    low, high = jnp.split(heads, 2, axis=-1)
    return jnp.concatenate([low * cosine - high * sine, high * cosine + low * sine], axis=-1)
