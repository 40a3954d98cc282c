"""Attention of new tokens to a cache and to themselves: one softmax, without a concatenation or transposition."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxprefix.models.attention.xla import batched_dot, cache_layout, group_queries, scores, ungroup_queries
from jaxprefix.models.hooks import Cache, visible


def attend_cached(
    query: Float[Array, "B M N H"],
    keys: Float[Array, "B T K H"],
    values: Float[Array, "B T K H"],
    query_positions: Int[Array, "B M"],
    positions: Int[Array, "B T"],
    cache: Cache,
    window: int | None,
    segments: Int[Array, "B T"] | None = None,
) -> Float[Array, "B M N H"]:
    """`softmax(q [cached; own keys]ᵀ/√H) [cached; own values]` for one layer; own keys are those of the same segment.

    A trained prefix is part of the cache (decode.py).
    """
    dtype = cache.keys.dtype  # on CPU the cache is wider than the states
    queries = group_queries(query.astype(dtype), keys.shape[2])
    new_keys, new_values = cache_layout(keys.astype(dtype), values.astype(dtype))
    own = visible(query_positions, positions, window)
    own = own if segments is None else own & (segments[:, :, None] == segments[:, None])
    logits = [
        scores(queries, cache.keys, visible(query_positions, cache.positions, window)),
        scores(queries, new_keys, own),
    ]
    most = jnp.maximum(*(jnp.max(part, axis=-1, keepdims=True) for part in logits))
    weights = [jnp.exp(part - most) for part in logits]
    total = jnp.add(*(jnp.sum(part, axis=-1, keepdims=True) for part in weights))
    read = zip(weights, (cache.values, new_values), strict=True)
    parts = (batched_dot(weight.astype(dtype), value, 3, 2) for weight, value in read)
    return ungroup_queries((jnp.add(*parts) / total).astype(values.dtype), query)
