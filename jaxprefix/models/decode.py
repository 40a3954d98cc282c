"""Prefill and generation. A prefix is a cache that was trained; here the cache is a prefix that was computed.

Rows are right-padded: new tokens go to the same slots in every row, and each slot carries its own row's position.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxprefix.models import decoder
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.decoder import Batch, Frozen
from jaxprefix.models.hooks import NEVER, Hooks, Prefix


def prefill(
    config: DecoderConfig, frozen: Frozen, batch: Batch, hooks: Hooks, room: int
) -> tuple[Float[Array, "B D"], Int[Array, " B"], Prefix]:
    """Runs the prompts; returns the state at each row's last token, the position that follows it, and the cache.

    The cache holds the trained prefix, a soft prompt, the prompt, and `room` empty slots at its end.
    """
    states, memory = decoder.run(config, frozen, batch, hooks, remat="full", keep=True)
    assert memory is not None
    positions = memory.positions[0]
    text = jnp.where(positions == NEVER, -1, positions)
    last = jnp.argmax(text, axis=1)
    ends = jnp.take_along_axis(states, last[:, None, None], axis=1)[:, 0]
    return ends, jnp.max(text, axis=1) + 1, _cache(memory, hooks.prefix, room)


def _cache(memory: Prefix, trained: Prefix | None, room: int) -> Prefix:
    layers, rows = memory.positions.shape[:2]

    def join(front: Array | None, text: Array, empty: int) -> Array:
        end = jnp.full((layers, rows, room, *text.shape[3:]), empty, text.dtype)
        if front is None:
            return jnp.concatenate([text, end], axis=2)
        front = front[:, None] if front.ndim < text.ndim else front
        front = jnp.broadcast_to(front, (layers, rows, front.shape[2], *text.shape[3:])).astype(text.dtype)
        return jnp.concatenate([front, text, end], axis=2)

    keys, values, slots = (None, None, None) if trained is None else (trained.keys, trained.values, trained.positions)
    return Prefix(join(keys, memory.keys, 0), join(values, memory.values, 0), join(slots, memory.positions, NEVER))


def extend(
    config: DecoderConfig, frozen: Frozen, batch: Batch, cache: Prefix, hooks: Hooks
) -> tuple[Float[Array, "B T D"], Prefix]:
    """States of further tokens after what the cache holds, and their own keys and values; the cache stays as it is."""
    after = hooks.replace(prefix=cache, prompt=None, first=0)  # type: ignore[attr-defined]
    states, memory = decoder.run(config, frozen, batch, after, remat="full", keep=True)
    assert memory is not None
    return states, memory


def generate(
    config: DecoderConfig, frozen: Frozen, batch: Batch, hooks: Hooks, length: int, ends: tuple[int, ...]
) -> tuple[Int[Array, "B M"], Int[Array, " B"]]:
    """Greedy continuation by at most `length` tokens: the tokens, and how many of a row's stand before its end token.

    The loop ends when every row has met one of `ends`.
    """
    rows = batch.tokens.shape[0]
    state, position, cache = prefill(config, frozen, batch, hooks, room=length - 1)
    start = cache.positions.shape[-1] - (length - 1)
    stops = jnp.array(ends)

    def choose(state: Array) -> Array:
        return jnp.argmax(decoder.logits(frozen, state), axis=-1).astype(jnp.int32)

    def write(index: Array, tokens: Array, counts: Array, done: Array, token: Array) -> tuple[Array, Array, Array]:
        done = done | jnp.isin(token, stops)
        return tokens.at[:, index].set(jnp.where(done, stops[0], token)), counts + ~done, done

    def more(carry: tuple) -> Array:
        index, _, done = carry[0], carry[1], carry[4]
        return (index < length) & ~jnp.all(done)

    def body(carry: tuple) -> tuple:
        index, cache, tokens, counts, done, position = carry
        last = Batch(jax.lax.dynamic_slice_in_dim(tokens, index - 1, 1, axis=1), position[:, None])
        states, new = extend(config, frozen, last, cache, hooks)
        cache = jax.tree.map(
            lambda slots, slot: jax.lax.dynamic_update_slice_in_dim(slots, slot, start + index - 1, axis=2), cache, new
        )
        return index + 1, cache, *write(index, tokens, counts, done, choose(states[:, -1])), position + 1

    empty = (jnp.full((rows, length), stops[0]), jnp.zeros(rows, jnp.int32), jnp.zeros(rows, bool))
    first = write(jnp.int32(0), *empty, choose(state))
    final = jax.lax.while_loop(more, body, (jnp.int32(1), cache, *first, position))
    return final[2], final[3]
