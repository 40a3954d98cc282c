"""Prefill and generation.

Rows are right-padded, and each slot of the cache has its own position. New tokens are written to a ring buffer of
slots after the prompts, to the same slot in all rows. When the answer of a row has ended, the row takes another prompt
while the others continue.

Prompts with the same beginning, such as few-shot examples, can share its cache, which is computed once.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int, UInt32

from jaxprefix.models import decoder, sharding
from jaxprefix.models.attention import cache_layout
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.decoder import Batch, Frozen
from jaxprefix.models.hooks import NEVER, Cache, Hooks, Prefix
from jaxprefix.models.layers import layer_of, unstack, unstack_hooks
from jaxprefix.models.sampling import Sampling, sample

# For the leaves of a layer's cache: the dimension of the slots, and the content of an empty slot.
SLOTS: Any = Cache(keys=3, values=2, positions=1)  # type: ignore[arg-type]
EMPTY: Any = Cache(keys=0, values=0, positions=NEVER)  # type: ignore[arg-type]


@struct.dataclass
class DecodeState:
    """The state of B rows that generate at most M tokens each. Rows that are `done` wait for another prompt."""

    cache: tuple[Cache, ...]  # slots: trained prefix, soft prompt, prompt, ring buffer of M - 1 new tokens
    slot: Int[Array, ""]  # of the ring buffer, for the next token
    last: Int[Array, " B"]  # the newest token, which is not in the cache yet
    position: Int[Array, " B"]  # the position of the newest token
    tokens: Int[Array, "B M"]  # the answer, filled up with an end token
    counts: Int[Array, " B"]
    seeds: UInt32[Array, " B"]  # of the samples
    done: Bool[Array, " B"]


@struct.dataclass
class SharedPrompt:
    """The beginning of the prompts of R rows: each row follows its first `lengths` tokens.

    The rows of the cache are equal. Its slots: trained prefix, soft prompt, the tokens of the shared prompt.
    """

    cache: tuple[Cache, ...]
    lengths: Int[Array, " R"]


@struct.dataclass
class PrefillBatch:
    """R prompts to insert into the batch. `source` is the prompt that a row takes, or -1."""

    batch: Batch
    seeds: UInt32[Array, " R"]
    source: Int[Array, " B"]
    shared: SharedPrompt | None = None


def prefill(
    config: DecoderConfig,
    frozen: Frozen,
    batch: Batch,
    hooks: Hooks,
    free_slots: int,
    shared: SharedPrompt | None = None,
) -> tuple[Float[Array, "B D"], Int[Array, " B"], tuple[Cache, ...]]:
    """Runs the prompts, or what follows the shared prompt in them. Returns the state of the last token of each row, the
    next position, and the cache.

    The cache contains the trained prefix, a soft prompt, the prompt, and `free_slots` empty slots at the end.
    """
    frozen = unstack(frozen)
    if shared is not None:
        batch, hooks = _after(shared, batch, hooks)
    positions = decoder.all_positions(batch, hooks)
    text = jnp.where(positions == NEVER, -1, positions)
    last = jnp.argmax(text, axis=1, keepdims=True)
    stream, computed = decoder.forward_last(config, frozen, batch, hooks, "full", last, return_cache=True)
    assert computed is not None
    state = decoder.final_norm(config, frozen, stream[:, 0])
    cache = [_with_free_slots(_before(hooks, layer, one), one, free_slots) for layer, one in enumerate(computed)]
    return state, jnp.max(text, axis=1) + 1, tuple(cache)


def _after(shared: SharedPrompt, batch: Batch, hooks: Hooks) -> tuple[Batch, Hooks]:
    """The batch at its positions after the shared prompt, whose cache replaces the prefix and prompt of the hooks."""
    start = shared.lengths[:, None] + (0 if hooks.prompt is None else hooks.prompt.shape[-2])
    positions = jnp.where(batch.positions == NEVER, NEVER, batch.positions + start)
    rows = len(positions)

    def rest_hidden(layer: Cache) -> Cache:
        """The cache for all rows. A row does not see the tokens of the shared prompt that it does not begin with."""
        layer = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[:1], (rows, *leaf.shape[1:])), layer)
        seen = jnp.where(layer.positions < start, layer.positions, NEVER)
        return _shard(layer.replace(positions=seen))  # type: ignore[attr-defined]

    cache = tuple(map(rest_hidden, shared.cache))
    return Batch(batch.tokens, positions), hooks.replace(cache=cache, prefix=None, prompt=None)  # type: ignore[attr-defined]


def _before(hooks: Hooks, layer: int, computed: Cache) -> Cache | None:
    """What precedes the computed keys and values of a layer: the cache of a shared prompt, or the trained prefix."""
    if isinstance(hooks.cache, tuple):
        return hooks.cache[layer]
    return None if hooks.prefix is None else _prefix_cache(layer_of(hooks.prefix, layer), computed)


def _with_free_slots(before: Cache | None, computed: Cache, free_slots: int) -> Cache:
    """What precedes the computed keys and values of a layer, these themselves, and `free_slots` empty slots."""

    def join(dim: int, filling: int, *leaves: Array) -> Array:
        shape, dtype = leaves[-1].shape, leaves[-1].dtype
        end = jnp.full((*shape[:dim], free_slots, *shape[dim + 1 :]), filling, dtype)
        return jnp.concatenate([*leaves, end], axis=dim)

    caches = [computed] if before is None else [before, computed]
    return _shard(jax.tree.map(join, SLOTS, EMPTY, *caches))


def _prefix_cache(prefix: Prefix, computed: Cache) -> Cache:
    """The trained prefix of a layer in the shapes of its cache."""
    keys, values = cache_layout(prefix.keys, prefix.values)

    def spread(dim: int, leaf: Array, like: Array) -> Array:
        shape = (*like.shape[:dim], leaf.shape[dim - like.ndim], *like.shape[dim + 1 :])
        return jnp.broadcast_to(leaf, shape).astype(like.dtype)

    return jax.tree.map(spread, SLOTS, Cache(keys, values, prefix.positions), computed)


def _shard(cache: Cache) -> Cache:
    """The cache of a layer, sharded over the mesh."""
    return Cache(
        sharding.shard_cache(cache.keys), sharding.shard_cache(cache.values), sharding.shard_rows(cache.positions)
    )


def extend_cache(
    config: DecoderConfig, frozen: Frozen, batch: Batch, cache: tuple[Cache, ...], hooks: Hooks
) -> tuple[Float[Array, "B T D"], tuple[Cache, ...]]:
    """The states of tokens that follow the cache, and their keys and values. The cache is not changed."""
    frozen = unstack(frozen)
    after = hooks.replace(cache=cache, prefix=None, prompt=None)  # type: ignore[attr-defined]
    stream, computed = decoder.forward(config, frozen, batch, after, "full", return_cache=True)
    assert computed is not None
    return decoder.final_norm(config, frozen, stream), computed


def init_state(
    config: DecoderConfig, frozen: Frozen, prefill_batch: PrefillBatch, hooks: Hooks, length: int
) -> DecodeState:
    """The state of empty rows, for prompts of this shape and answers of at most `length` tokens."""
    like = jax.eval_shape(
        lambda: prefill(config, frozen, prefill_batch.batch, hooks, length - 1, prefill_batch.shared)[2]
    )
    rows = prefill_batch.source.shape[0]

    def slots(filling: int, leaf: Any) -> Array:
        return jnp.full((rows, *leaf.shape[1:]), filling, leaf.dtype)

    zeros = jnp.zeros(rows, jnp.int32)
    return DecodeState(
        cache=tuple(_shard(jax.tree.map(slots, EMPTY, layer)) for layer in like),
        slot=jnp.int32(0),
        last=zeros,
        position=zeros,
        tokens=jnp.zeros((rows, length), jnp.int32),
        counts=zeros,
        seeds=zeros.astype(jnp.uint32),
        done=jnp.ones(rows, bool),
    )


def insert(
    config: DecoderConfig,
    frozen: Frozen,
    state: DecodeState,
    prefill_batch: PrefillBatch,
    hooks: Hooks,
    ends: tuple[int, ...],
    sampling: Sampling,
) -> DecodeState:
    """Runs the prompts and inserts them into the rows that `source` names, with their first token."""
    length = state.tokens.shape[1]
    states, position, cache = prefill(config, frozen, prefill_batch.batch, hooks, length - 1, prefill_batch.shared)
    zeros = jnp.zeros_like(prefill_batch.seeds, jnp.int32)
    token = sample(decoder.logits(frozen, states), sampling, prefill_batch.seeds, zeros)
    taken = prefill_batch.source >= 0

    def put(new: Array, old: Array) -> Array:
        fresh = jnp.take(new, jnp.maximum(prefill_batch.source, 0), axis=0)
        return jnp.where(taken.reshape(-1, *[1] * (old.ndim - 1)), fresh, old)

    state = state.replace(  # type: ignore[attr-defined]
        cache=tuple(_shard(jax.tree.map(put, *layers)) for layers in zip(cache, state.cache, strict=True)),
        position=put(position - 1, state.position),  # `_write` counts on
        tokens=put(jnp.full((len(zeros), length), ends[0]), state.tokens),
        counts=put(zeros, state.counts),
        seeds=put(prefill_batch.seeds, state.seeds),
        done=state.done & ~taken,
    )
    return _write(state, put(token, state.last), taken, ends)


def _write(answers: DecodeState, token: Array, live: Array, ends: tuple[int, ...]) -> DecodeState:
    """Appends a token to the answers of the `live` rows, or ends them."""
    length = answers.tokens.shape[1]
    ended = live & jnp.isin(token, jnp.array(ends))
    grows = live & ~ended
    here = grows[:, None] & (jnp.arange(length) == answers.counts[:, None])
    counts = answers.counts + grows
    return answers.replace(  # type: ignore[attr-defined]
        last=jnp.where(live, token, answers.last),
        position=answers.position + live,
        tokens=jnp.where(here, token[:, None], answers.tokens),
        counts=counts,
        done=answers.done | ended | (live & (counts == length)),
    )


def _write_slot(dim: int, slots: Array, new: Array, slot: Array) -> Array:
    return jax.lax.dynamic_update_slice_in_dim(slots, new, slot, dim)


def _after_all_of(states: Array, slot: Array) -> Array:
    """The slot, in a form that XLA knows only after the states.

    So every layer has read its cache before the slot is written, and XLA can write it in place. It would otherwise copy
    the whole cache in every step. The condition is always true.
    """
    known = jax.lax.convert_element_type(states.reshape(-1)[0] > 0, jnp.int32) >= 0
    return jnp.where(known, slot, 0)


def decode_steps(
    config: DecoderConfig,
    frozen: Frozen,
    state: DecodeState,
    hooks: Hooks,
    ends: tuple[int, ...],
    sampling: Sampling,
    min_active: Int[Array, ""] | int,
    steps: Int[Array, ""] | int,
) -> DecodeState:
    """Generates `steps` tokens, or fewer if at most `min_active` rows are left."""
    ring, hooks = state.tokens.shape[1] - 1, unstack_hooks(hooks)
    start = state.cache[0].positions.shape[-1] - ring

    def more(carry: tuple[Array, DecodeState]) -> Array:
        return (carry[0] < steps) & (jnp.sum(~carry[1].done) > min_active)

    def step(carry: tuple[Array, DecodeState]) -> tuple[Array, DecodeState]:
        number, answers = carry
        live = ~answers.done
        last = Batch(answers.last[:, None], jnp.where(live, answers.position, NEVER)[:, None])
        states, new = extend_cache(config, frozen, last, answers.cache, hooks)
        write = partial(_write_slot, slot=_after_all_of(states, start + answers.slot))
        cache = tuple(_shard(jax.tree.map(write, SLOTS, *layers)) for layers in zip(answers.cache, new, strict=True))
        answers = answers.replace(cache=cache, slot=(answers.slot + 1) % ring)  # type: ignore[attr-defined]
        token = sample(decoder.logits(frozen, states[:, -1]), sampling, answers.seeds, answers.counts)
        return number + 1, _write(answers, token, live, ends)

    if not ring:  # answers of one token are complete after `insert`
        return state
    return jax.lax.while_loop(more, step, (jnp.int32(0), state))[1]
