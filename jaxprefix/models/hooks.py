"""The dimension key, and Hooks: the only places where an adapter may touch the decoder.

    B batch · T query time · S key time · P prefix length · L layers · D model · F feed-forward · N query heads ·
    K key/value heads · H head size · V vocabulary · R rank

A hook's per-layer leaves are stacked `[L, ...]` over all layers; the decoder's loop slices them. The layers below
`first` have none: what happens there is not differentiated.
"""

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from jaxprefix.errors import InputError

# Positions say what a query may see. Text counts from 0; these two are no positions of text.
ALWAYS = -1  # a prefix slot: every query sees it, whatever the window
NEVER = 2**30  # padding, or a cache slot that is not written yet: no query of text sees it

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def input_dims(projection: str) -> int:
    """The last dimensions that a projection contracts: o reads heads apart [N, H], every other one dimension."""
    return 2 if projection == "o_proj" else 1


SEAMS = ("prompt", "prefix", "gated", "after_attention", "after_feed_forward")  # of Hooks, beside delta


@struct.dataclass
class Prefix:
    """Keys and values that join a layer's softmax; `positions` is ALWAYS, or NEVER in a layer that has no prefix.

    With a batch dimension (`[L, B, P, K, H]`) every row has a prefix of its own.
    """

    keys: Float[Array, "L *B P K H"]
    values: Float[Array, "L *B P K H"]
    positions: Int[Array, "L P"]


@struct.dataclass
class Cache:
    """A prefix that was computed: S slots a row, of a trained prefix and of text, each with its position or NEVER.

    Keys lie as the product with queries reads them, values as the one with their weights does.
    """

    keys: Float[Array, "L B K H S"]
    values: Float[Array, "L B K S H"]
    positions: Int[Array, "L B S"]


@struct.dataclass
class Gated:
    """Keys and values with a softmax of their own, whose result is added times `gate` (one number a query head).

    With a batch dimension in all three every row has its own.
    """

    keys: Float[Array, "L *B P K H"]
    values: Float[Array, "L *B P K H"]
    gate: Float[Array, "L *B N"]


@struct.dataclass
class LowRank:
    """`scale · b (a x)` added to a projection; `a` and `b` keep the projection's own input and output dimensions.

    `keys` (one a layer) drop out a share `dropout` of the inputs; without keys nothing is dropped.
    """

    a: Float[Array, "L R ..."]
    b: Float[Array, "L ... R"]
    scale: float = struct.field(pytree_node=False, default=1.0)
    dropout: float = struct.field(pytree_node=False, default=0.0)
    keys: Array | None = None


@struct.dataclass
class Bottleneck:
    """`x + up(silu(down(x)))` on a block's residual stream."""

    down: Float[Array, "L R D"]
    up: Float[Array, "L D R"]


@struct.dataclass
class Hooks:
    """Everything that an adapter adds to one call of the decoder; the empty one is the frozen base."""

    first: int = struct.field(pytree_node=False, default=0)  # the lowest layer that has a hook
    prompt: Float[Array, "*B P D"] | None = None  # vectors before the embeddings: real positions 0..P-1
    prefix: Prefix | None = None
    cache: Cache | None = None  # in the place of the prefix, which it holds
    gated: Gated | None = None
    delta: Mapping[str, LowRank] = struct.field(default_factory=dict)  # by the projection's name in PROJECTIONS
    after_attention: Bottleneck | None = None
    after_feed_forward: Bottleneck | None = None

    @property
    def per_layer(self) -> "Hooks":
        """The same without the prompt: what the loop over layers slices."""
        return self.replace(prompt=None)  # type: ignore[attr-defined]


def merge(parts: Sequence[Hooks]) -> Hooks:
    """The sum of several adapters' hooks, field by field; two of them may not hold the same seam."""
    merged, delta = {}, {}
    for part in parts:
        for name, hook in part.delta.items():
            if name in delta:
                raise InputError(f"two methods of the sum change {name}; give each its own targets")
            delta[name] = hook
        for seam in SEAMS:
            hook = getattr(part, seam)
            if hook is not None and seam in merged:
                raise InputError(f"two methods of the sum use the decoder's seam {seam!r}; at most one may")
            if hook is not None:
                merged[seam] = hook
    return Hooks(first=min(part.first for part in parts), delta=delta, **merged)


def visible(query: Int[Array, "B T"], key: Int[Array, "B S"], window: int | None) -> Array:
    """Which key each query may see, `[B, T, S]`: causal by position, within Mistral's window, a prefix always."""
    query, key = query[:, :, None], key[:, None, :]
    seen = key <= query
    if window is not None:
        seen &= query - key < window
    return jnp.where(key == ALWAYS, True, seen & (key != NEVER))
