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
) -> Float[Array, "B M N H"]:
    """`softmax(q [cached; own keys]ᵀ/√H) [cached; own values]` for one layer.

    A trained prefix is part of the cache (decode.py).
    """
    queries = group_queries(query, keys.shape[2])
    own = cache_layout(keys, values)
    found = [
        scores(queries, cache.keys, visible(query_positions, cache.positions, window)),
        scores(queries, own[0], visible(query_positions, positions, window)),
    ]
    most = jnp.maximum(*(jnp.max(each, axis=-1, keepdims=True) for each in found))
    weights = [jnp.exp(each - most) for each in found]
    total = jnp.add(*(jnp.sum(each, axis=-1, keepdims=True) for each in weights))
    read = zip(weights, (cache.values, own[1]), strict=True)
    parts = (batched_dot(each.astype(values.dtype), values, 3, 2) for each, values in read)
    return ungroup_queries((jnp.add(*parts) / total).astype(values.dtype), query)
