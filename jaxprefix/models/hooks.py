"""Hooks: the only places where an adapter may change the decoder. And the letters of all dimensions:

    B batch · T query time · S key time · P prefix length · L layers · D model · F feed-forward · N query heads ·
    K key/value heads · H head size · V vocabulary · R rank

The leaves of a hook are stacked `[L, ...]` over all layers, and the decoder's loop slices them; a cache is a tuple of
layers. Layers below
`first_adapted_layer` have no hook and are not differentiated.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from jaxprefix.errors import InputError

Frozen = dict[str, Any]  # the weights of the base, nested (decoder.py)
Params = dict[str, Any]  # the parameters of an adapter, nested: nothing else is differentiated

# Positions decide what a query may attend to. Text counts from 0; these two values have a meaning of their own.
ALWAYS = -1  # a virtual token of a prefix: every query attends to it, whatever the window
NEVER = 2**30  # padding, or an empty cache slot: no query attends to it

SEAMS = (
    "prompt",
    "prefix",
    "gated",
    "after_attention",
    "after_feed_forward",
)  # the fields of Hooks that are not per projection


@struct.dataclass
class Prefix:
    """Keys and values that join the softmax of a layer.

    `positions` is ALWAYS, or NEVER in a layer without a prefix. With a batch dimension (`[L, B, P, K, H]`) each row has
    its own prefix.
    """

    keys: Float[Array, "L *B P K H"]
    values: Float[Array, "L *B P K H"]
    positions: Int[Array, "L P"]


@struct.dataclass
class Cache:
    """Keys and values of one layer, of a trained prefix and of text, in S slots per row.

    Each slot has its position or NEVER. Keys and values have the layouts that their products read without a
    transposition.
    """

    keys: Float[Array, "B K H S"]
    values: Float[Array, "B K S H"]
    positions: Int[Array, "B S"]


@struct.dataclass
class Gated:
    """Keys and values with a softmax of their own. Its output is multiplied by `gate`, one number per query head.

    With a batch dimension in all three leaves each row has its own.
    """

    keys: Float[Array, "L *B P K H"]
    values: Float[Array, "L *B P K H"]
    gate: Float[Array, "L *B N"]


@struct.dataclass
class LowRank:
    """`scale · b (a x)`, added to a projection: `a` is `[L, *B, R, inputs...]`, `b` is `[L, *B, outputs..., R]`.

    With `gain`, the sum is multiplied by it: `gain · (W x + scale · b (a x))`, without the projection's bias.
    With a batch dimension in all leaves each row has its own. `dropout` is the rate on the inputs, with one key per
    layer in `dropout_keys`; without keys there is no dropout.
    """

    a: Float[Array, "L ..."]
    b: Float[Array, "L ..."]
    scale: float = struct.field(pytree_node=False, default=1.0)
    dropout: float = struct.field(pytree_node=False, default=0.0)
    dropout_keys: Array | None = None
    gain: Float[Array, "L ..."] | None = None  # [L, *B, outputs...]


@struct.dataclass
class Bottleneck:
    """`x + up(silu(down(x)))` on a block's residual stream. With a batch dimension in both each row has its own."""

    down: Float[Array, "L *B R D"]
    up: Float[Array, "L *B D R"]


@struct.dataclass
class Hooks:
    """All that an adapter adds to a call of the decoder. `Hooks()` is the frozen base."""

    first_adapted_layer: int = struct.field(pytree_node=False, default=0)  # the lowest layer with a hook
    prompt: Float[Array, "*B P D"] | None = (
        None  # like rows of the embedding table, before those of the text, at positions 0..P-1
    )
    prefix: Prefix | None = None
    # Of all layers, and in a layer its own. It replaces the prefix, and contains it.
    cache: tuple[Cache, ...] | Cache | None = None
    gated: Gated | None = None
    delta: Mapping[str, LowRank] = struct.field(default_factory=dict)  # by the name of a projection (parameters.py)
    # A factor on the output of a projection, after its delta and bias, by the name of a projection: [L, *B, outputs...]
    gain: Mapping[str, Float[Array, "L ..."]] = struct.field(default_factory=dict)
    after_attention: Bottleneck | None = None
    after_feed_forward: Bottleneck | None = None

    @property
    def per_layer(self) -> "Hooks":
        """The hooks without prompt and cache: the leaves that the loop over layers slices."""
        return self.replace(prompt=None, cache=None)  # type: ignore[attr-defined]


def merge(parts: Sequence[Hooks]) -> Hooks:
    """The hooks of several adapters together. InputError if two of them use the same field."""
    merged, delta, gain = {}, {}, {}
    for part in parts:
        for all_hooks, own, verb in ((delta, part.delta, "change"), (gain, part.gain, "scale")):
            for name, hook in own.items():
                if name in all_hooks:
                    raise InputError(f"two methods of the sum {verb} {name}; give each its own targets")
                all_hooks[name] = hook
        for seam in SEAMS:
            hook = getattr(part, seam)
            if hook is not None and seam in merged:
                raise InputError(f"two methods of the sum use the decoder's seam {seam!r}; at most one may")
            if hook is not None:
                merged[seam] = hook
    return Hooks(first_adapted_layer=min(part.first_adapted_layer for part in parts), delta=delta, gain=gain, **merged)


def visible(query: Int[Array, "B T"], key: Int[Array, "B S"], window: int | None) -> Array:
    """The attention mask `[B, T, S]`: causal by position and within Mistral's window; a prefix is always visible."""
    query, key = query[:, :, None], key[:, None, :]
    seen = key <= query
    if window is not None:
        seen &= query - key < window
    return jnp.where(key == ALWAYS, True, seen & (key != NEVER))
