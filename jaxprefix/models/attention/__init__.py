"""Grouped-query attention. Its kernel is chosen here and nowhere else.

xla.py takes any positions. Right-padded rows of text after a prefix, as in training and prefill, use a kernel of the
platform, or blocks.py; `decoder.Batch.right_padded` makes them. cached.py is for tokens that follow a cache.
"""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxprefix.models.attention import blocks, cudnn, splash
from jaxprefix.models.attention.cached import attend_cached
from jaxprefix.models.attention.call import RESIDUALS, AttentionShape, platform
from jaxprefix.models.attention.rope import rotate, rotation
from jaxprefix.models.attention.xla import attention, cache_layout
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.hooks import ALWAYS, Hooks, Prefix, visible

__all__ = [
    "RESIDUALS",
    "attend_cached",
    "attend_prefill",
    "attention",
    "broadcast_rows",
    "cache_layout",
    "kernel",
    "kernel_line",
    "platform",
    "rotate",
    "rotation",
]

KERNELS = {"tpu": ("splash", splash), "gpu": ("cudnn", cudnn)}


def kernel(call: AttentionShape) -> tuple[str, str]:
    """The kernel for right-padded rows on the current mesh, and for "xla" the reason against a faster one."""
    if platform() not in KERNELS:
        return "xla", f"{platform()} has no other kernel"
    name, module = KERNELS[platform()]
    why = module.why_unsupported(call)
    return (name, "") if why is None else ("xla", why)


def attend_prefill(
    query: Float[Array, "B M N H"],
    keys: Float[Array, "B T K H"],
    values: Float[Array, "B T K H"],
    query_positions: Int[Array, "B M"],
    positions: Int[Array, "B T"],
    prefix: Prefix | None,
    window: int | None,
    right_padded: bool,
) -> Float[Array, "B M N H"]:
    """Attention with one softmax over the prefix of this layer and the text, in training and prefill."""
    slots, key_positions = 0, positions
    if prefix is not None:
        slots = prefix.positions.shape[-1]
        keys = jnp.concatenate([broadcast_rows(prefix.keys, keys), keys], axis=1)
        values = jnp.concatenate([broadcast_rows(prefix.values, values), values], axis=1)
        before = jnp.broadcast_to(prefix.positions, (positions.shape[0], slots))
        key_positions = jnp.concatenate([before, positions], axis=1)
    if right_padded:
        rows, time, heads, size = query.shape
        name, _ = kernel(AttentionShape(rows, time, heads, keys.shape[2], size, query.dtype, slots, window))
        present = None if prefix is None else prefix.positions[0] == ALWAYS
        module = blocks if name == "xla" else KERNELS[platform()][1]
        return module.attend(query, keys, values, present, window)
    return attention(query, keys, values, visible(query_positions, key_positions, window))


def broadcast_rows(slots: Array, like: Array) -> Array:
    """Broadcasts `[P, K, H]` or `[B, P, K, H]` to the rows of `like`, in its dtype."""
    return jnp.broadcast_to(slots, (like.shape[0], *slots.shape[-3:])).astype(like.dtype)


def kernel_line(
    config: DecoderConfig, mesh: jax.sharding.Mesh, rows: int, times: Sequence[int], dtype: str, hooks: Hooks
) -> str:
    """The line that a run prints, such as `attention: xla at 64, 96 (fewer than 128 tokens); splash at 512`."""
    lengths: dict[str, list[int]] = {}  # by kernel
    before = 0 if hooks.prompt is None else hooks.prompt.shape[-2]
    slots = 0 if hooks.prefix is None else hooks.prefix.positions.shape[-1]
    windows = dict.fromkeys(kind.window for kind in config.kinds)
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        for time, window in itertools.product(times, windows):
            sizes = (config.heads, config.kv_heads, config.head_size)
            name, why = kernel(AttentionShape(rows, before + time, *sizes, jnp.dtype(dtype), slots, window))
            found = lengths.setdefault(f"{name}{{}} ({why})" if why else f"{name}{{}}", [])
            found.extend([time] if time not in found else [])
    if len(lengths) == 1:
        return f"attention: {next(iter(lengths)).format('')}"
    parts = (words.format(f" at {', '.join(map(str, at))}") for words, at in lengths.items())
    return f"attention: {'; '.join(parts)}"
