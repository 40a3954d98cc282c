"""Attention of new tokens to a cache and to themselves: one softmax, without a concatenation or transposition."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxprefix.models.attention.xla import heads_in_front, laid_out, product, read_back, scores
from jaxprefix.models.hooks import Cache, visible


def further(
    query: Float[Array, "B M N H"],
    keys: Float[Array, "B T K H"],
    values: Float[Array, "B T K H"],
    asking: Int[Array, "B M"],
    positions: Int[Array, "B T"],
    cache: Cache,
    window: int | None,
) -> Float[Array, "B M N H"]:
    """`softmax(q [cached; own keys]ᵀ/√H) [cached; own values]` for one layer."""
    queries = laid_out(query, keys.shape[2])
    own = heads_in_front(keys, values)
    found = [
        scores(queries, cache.keys, visible(asking, cache.positions, window)),
        scores(queries, own[0], visible(asking, positions, window)),
    ]
    most = jnp.maximum(*(jnp.max(each, axis=-1, keepdims=True) for each in found))
    weights = [jnp.exp(each - most) for each in found]
    total = jnp.add(*(jnp.sum(each, axis=-1, keepdims=True) for each in weights))
    read = zip(weights, (cache.values, own[1]), strict=True)
    parts = (product(each.astype(values.dtype), values, 3, 2) for each, values in read)
    return read_back((jnp.add(*parts) / total).astype(values.dtype), query)
