"""Rotary position embeddings (RoPE, arXiv:2104.09864), with the scaling of Llama 3.1 and YaRN (arXiv:2309.00071)."""

from math import ceil, floor, log, pi

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxprefix.models.config import Rope


def rotation(rope: Rope | None, size: int, positions: Array) -> tuple[Array, Array]:
    """Cosines and sines `[B, T, H/2]` (float32) of the angles of RoPE at `positions` `[B, T]`; without RoPE 1 and 0."""
    if rope is None:
        ones = jnp.ones((*positions.shape, size // 2))
        return ones, jnp.zeros_like(ones)
    frequencies = rope.theta ** -(jnp.arange(0, size, 2, dtype=jnp.float32) / size)
    if rope.kind == "linear":
        frequencies /= rope.factor
    if rope.kind == "llama3":
        frequencies = _llama3(rope, frequencies)
    if rope.kind == "yarn":
        frequencies = _yarn(rope, frequencies)
    angles = positions[..., None].astype(jnp.float32) * frequencies
    return jnp.cos(angles), jnp.sin(angles)


def _llama3(rope: Rope, frequencies: Array) -> Array:
    """Llama 3.1: wavelengths above original context / low factor are scaled, short ones kept, others interpolated."""
    turns = rope.original_positions * frequencies / (2 * jnp.pi)
    blend = (turns - rope.low_frequency_factor) / (rope.high_frequency_factor - rope.low_frequency_factor)
    blend = jnp.clip(blend, 0, 1)
    return (1 - blend) * frequencies / rope.factor + blend * frequencies


def _yarn(rope: Rope, frequencies: Array) -> Array:
    """Frequencies that turn less than the low factor times in the original context are scaled, fast ones kept."""
    count = len(frequencies)

    def index(turns: float) -> float:
        return count * log(rope.original_positions / (turns * 2 * pi)) / log(rope.theta)

    first, last = index(rope.high_frequency_factor), index(rope.low_frequency_factor)
    if rope.truncate:
        first, last = floor(first), ceil(last)
    first, last = max(first, 0), min(last, 2 * count - 1)
    blend = jnp.clip((jnp.arange(count) - first) / ((last - first) or 0.001), 0, 1)
    return blend * frequencies / rope.factor + (1 - blend) * frequencies


def rotate(heads: Float[Array, "B T G H"], turn: tuple[Array, Array]) -> Float[Array, "B T G H"]:
    """Rotates each pair (j, j + H/2) of every head, the layout of Hugging Face checkpoints."""
    cosine, sine = (part[:, :, None].astype(heads.dtype) for part in turn)
    low, high = jnp.split(heads, 2, axis=-1)
    return jnp.concatenate([low * cosine - high * sine, high * cosine + low * sine], axis=-1)
