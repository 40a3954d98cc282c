"""Splash attention on TPUs: blocks that the mask hides are not computed, and no scores are kept.

    keys:    prefix 0..P-1 · text P..P+T-1 · zeros up to whole blocks
    queries: text 0..T-1 · zeros up to whole blocks
    query t sees key s where s <= t + P, and within a window w where also s < P or t + P - s < w

Causality alone hides a right-padded row's padding from its text, and the zeros. What the padding itself reads is never
used.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu import splash_attention as splash
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float

from jaxprefix.models.attention.call import AXES, BLOCK, RESIDUALS, Call, cannot_be_divided, mesh

LARGEST_BLOCK = 512  # of queries or keys: what fits beside its scores into a core's own memory, backward as well


def refusal(call: Call) -> str | None:
    """Why this call needs another kernel, if it does."""
    if call.time < BLOCK:
        return f"fewer tokens than a block of {BLOCK}"
    return cannot_be_divided(call)


def attend(
    query: Float[Array, "B T N H"],
    keys: Float[Array, "B S K H"],
    values: Float[Array, "B S K H"],
    present: Bool[Array, ""] | None,
    window: int | None,
    interpret: bool = False,
) -> Float[Array, "B T N H"]:
    """Attention of text to the S - T slots of a prefix, where it is `present`, and to the text up to each token.

    `present` differs from layer to layer and is None where no layer has a prefix. `interpret` runs it without a TPU.
    """
    present = jnp.array(True) if present is None else present
    attend = partial(_local, window=window, interpret=interpret)
    if not mesh().empty:  # a kernel knows one device: each takes its own rows and heads
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
    # In float32: √H rounded to bfloat16 would change the softmax's temperature.
    query = (query.astype(jnp.float32) * size**-0.5).astype(query.dtype)
    query, keys, values = _laid_out(query, step), _laid_out(keys, width), _laid_out(values, width)
    read: Any
    if slots:
        # Masks are the same in all layers; a layer without the prefix puts its slots into another segment.
        hidden = (jnp.arange(width) < slots) & ~present
        segments = splash.SegmentIds(jnp.ones(step, jnp.int32), jnp.where(hidden, 0, 1))
        read = jax.vmap(kernel, (0, 0, 0, None))(query, keys, values, segments)
    else:
        read = jax.vmap(kernel)(query, keys, values)
    return jnp.swapaxes(read[:, :, :time], 1, 2)


def _blocks(length: int) -> tuple[int, int]:
    """The padded length and its block: as few blocks as hold it, and none larger than they must be."""
    count = -(-length // LARGEST_BLOCK)
    block = -(-length // (count * BLOCK)) * BLOCK
    return count * block, block


def _laid_out(states: Array, length: int) -> Array:
    """`[B, T, G, H]` as `[B, G, length, H]`, with zeros behind."""
    states = jnp.swapaxes(states, 1, 2)
    return jnp.pad(states, [(0, 0), (0, 0), (0, length - states.shape[2]), (0, 0)])


def _mask(time: int, width: int, slots: int, window: int | None) -> splash.Mask:
    if window is None:
        return splash.CausalMask((time, width), offset=slots)
    text = splash.LocalMask((time, width), (window - 1, 0), offset=slots)
    return text | _Columns(time, width, slots) if slots else text


class _Columns(splash.Mask):
    """Every query sees the first `slots` keys."""

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
