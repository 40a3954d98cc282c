"""Splash attention on TPUs, which skips masked blocks and saves no scores.

    keys:    prefix 0..P-1 · text P..P+T-1 · zeros up to whole blocks
    queries: text 0..T-1 · zeros up to whole blocks
    query t attends to key s if s <= t + P and, with a window w, also s < P or t + P - s < w

Causality hides the zeros and the padding of a right-padded row from its text. The outputs of padding are never used.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu import splash_attention as splash
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float

from jaxprefix.models.attention.call import AXES, BLOCK, RESIDUALS, AttentionShape, mesh, why_not_divisible

LARGEST_BLOCK = 512  # queries or keys; larger blocks and their scores exceed the memory of a core in the backward pass


def why_unsupported(call: AttentionShape) -> str | None:
    """Why splash attention cannot compute this call, or None."""
    if call.time < BLOCK:
        return f"fewer tokens than a block of {BLOCK}"
    return why_not_divisible(call)


def attend(
    query: Float[Array, "B T N H"],
    keys: Float[Array, "B S K H"],
    values: Float[Array, "B S K H"],
    present: Bool[Array, ""] | None,
    window: int | None,
    interpret: bool = False,
) -> Float[Array, "B T N H"]:
    """Attention of text to a prefix of S - T virtual tokens, if `present`, and to the text up to each token.

    `present` depends on the layer. It is None if no layer has a prefix. `interpret` runs the kernel without a TPU.
    """
    present = jnp.array(True) if present is None else present
    attend = partial(_local, window=window, interpret=interpret)
    if not mesh().empty:  # the kernel runs on one device: each has its own rows and heads
        heads = PartitionSpec(AXES[0], None, AXES[1], None)
        places = (heads, heads, heads, PartitionSpec())
        attend = jax.shard_map(attend, in_specs=places, out_specs=heads, check_vma=False)
    return attend(query, keys, values, present)


def _local(query: Array, keys: Array, values: Array, present: Array, window: int | None, interpret: bool) -> Array:
    _, time, heads, size = query.shape
    slots = keys.shape[1] - time
    step, query_block = _blocks(time)
    width, key_block = _blocks(keys.shape[1])
    blocks = splash.BlockSizes(
        block_q=query_block,
        block_kv=key_block,
        block_q_dkv=query_block,
        block_kv_dkv=key_block,
        block_q_dq=query_block,
        block_kv_dq=key_block,
    )
    kernel = splash.make_splash_mha(
        splash.MultiHeadMask([_mask(step, width, slots, window)] * heads),
        block_sizes=blocks,
        head_shards=1,
        q_seq_shards=1,
        residual_checkpoint_name=RESIDUALS,
        interpret=interpret,
    )
    # In float32, because √H in bfloat16 changes the temperature of the softmax.
    query = (query.astype(jnp.float32) * size**-0.5).astype(query.dtype)
    query, keys, values = _laid_out(query, step), _laid_out(keys, width), _laid_out(values, width)
    read: Any
    if slots:
        # All layers have the same mask. A layer without the prefix puts its virtual tokens into another segment.
        hidden = (jnp.arange(width) < slots) & ~present
        segments = splash.SegmentIds(jnp.ones(step, jnp.int32), jnp.where(hidden, 0, 1))
        read = jax.vmap(kernel, (0, 0, 0, None))(query, keys, values, segments)
    else:
        read = jax.vmap(kernel)(query, keys, values)
    return jnp.swapaxes(read[:, :, :time], 1, 2)


def _blocks(length: int) -> tuple[int, int]:
    """The padded length and the block size: as few and as small blocks as possible."""
    count = -(-length // LARGEST_BLOCK)
    block = -(-length // (count * BLOCK)) * BLOCK
    return count * block, block


def _laid_out(states: Array, length: int) -> Array:
    """`[B, T, G, H]` as `[B, G, length, H]`, padded with zeros."""
    states = jnp.swapaxes(states, 1, 2)
    return jnp.pad(states, [(0, 0), (0, 0), (0, length - states.shape[2]), (0, 0)])


def _mask(time: int, width: int, slots: int, window: int | None) -> splash.Mask:
    if window is None:
        return splash.CausalMask((time, width), offset=slots)
    text = splash.LocalMask((time, width), (window - 1, 0), offset=slots)
    return text | _Columns(time, width, slots) if slots else text


class _Columns(splash.Mask):
    """Every query attends to the first `slots` keys."""

    def __init__(self, time: int, width: int, slots: int) -> None:
        self.sizes = (time, width, slots)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.sizes[:2]

    def __getitem__(self, index: tuple[slice, slice]) -> np.ndarray:
        time, width, slots = self.sizes
        seen = np.arange(width)[index[1]] < slots
        return np.broadcast_to(seen, (len(range(time)[index[0]]), len(seen)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Columns) and self.sizes == other.sizes

    def __hash__(self) -> int:
        return hash(self.sizes)
