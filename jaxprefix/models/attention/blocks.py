"""Attention of right-padded rows in XLA: queries in blocks, each with the keys that its last query attends to."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxprefix.models.attention.xla import attention

BLOCK = 64  # a smaller block of queries is not worth it
BLOCKS = 8  # at most: each is compiled on its own, and more of them save little


def attend(
    query: Float[Array, "B T N H"],
    keys: Float[Array, "B S K H"],
    values: Float[Array, "B S K H"],
    present: Bool[Array, ""] | None,
    window: int | None,
) -> Float[Array, "B T N H"]:
    """Attention of text to a prefix of S - T virtual tokens, if `present`, and to the text up to each token.

    `present` depends on the layer. It is None if no layer has a prefix.
    """
    time = query.shape[1]
    slots = keys.shape[1] - time
    step = -(-time // min(BLOCKS, max(1, time // BLOCK)))

    def block(first: int) -> Array:
        last = min(first + step, time)
        seen = jnp.asarray(_text(np.arange(first, last), last, window))
        if present is not None:
            seen = jnp.concatenate([jnp.broadcast_to(present, (last - first, slots)), seen], axis=1)
        end = slots + last
        return attention(query[:, first:last], keys[:, :end], values[:, :end], seen[None])

    return jnp.concatenate([block(first) for first in range(0, time, step)], axis=1)


def _text(queries: np.ndarray, keys: int, window: int | None) -> np.ndarray:
    """The mask of these queries over the first `keys` tokens."""
    distance = queries[:, None] - np.arange(keys)
    return (distance >= 0) & (distance < (keys if window is None else window))
