"""One Flax decoder for Llama (arXiv:2302.13971) and Mistral (arXiv:2310.06825), with the few seams of hooks.py.

Flax declares one block; the loop over layers is `lax.scan` over its `apply`. Weights keep the layout of Hugging Face
(`[out, in]`, heads apart), stacked over layers:

    embed_tokens [V, D] · norm [D] · lm_head [V, D], where it is not tied
    layers: input_layernorm, post_attention_layernorm [L, D] · q_proj [L, N, H, D] · k_proj, v_proj [L, K, H, D]
            o_proj [L, D, N, H] · gate_proj, up_proj [L, F, D] · down_proj [L, D, F]
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from jaxprefix.models import sharding
from jaxprefix.models.attention import attention, causal, further, heads_in_front, ordinary, per_row, rotation
from jaxprefix.models.block import Block, picked, product, rms_norm
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.hooks import NEVER, Cache, Hooks
from jaxprefix.models.scan import loop

Frozen = Any  # the tree of weights above

FEW_PLACES = 128  # of a row, and at most its half: the last layer computes them alone, and XLA their few scores
HEAD_POSITIONS = 512  # logits stand for at most about this many positions at once: 512 × 128,256 × 4 bytes are 263 MB


@struct.dataclass
class Batch:
    """Rows of tokens. `positions` counts the text from 0 and is NEVER where a row is padded, left or right.

    Who knows that every row is padded on the right alone says so: such rows may take a faster attention, and states of
    a row that is otherwise are NaN.
    """

    tokens: Int[Array, "B T"]
    positions: Int[Array, "B T"]
    right_padded: bool = struct.field(pytree_node=False, default=False)


def attend_with(
    query: Array,
    keys: Array,
    values: Array,
    asking: Array,
    positions: Array,
    window: int | None,
    hooks: Hooks,
    is_ordinary: bool = False,
) -> Array:
    """The layer's attention: prefix or cache and text share one softmax; the gated keys have their own.

    `asking` are the positions of the queries, `positions` those of the text.
    """
    if hooks.cache is not None:
        read = further(query, keys, values, asking, positions, hooks.cache, window)
    else:
        read = causal(query, keys, values, asking, positions, hooks.prefix, window, is_ordinary)
    gated = hooks.gated
    if gated is not None:
        own = attention(query, per_row(gated.keys, keys), per_row(gated.values, values))
        read = read + (gated.gate[..., None, :, None] * own).astype(read.dtype)
    return read


def init(key: Array, config: DecoderConfig) -> Frozen:
    """Random weights (float32) as Hugging Face draws them: normal 0.02, norms one. Theirs are the decoder's shapes."""
    embedding, head, layers = jax.random.split(key, 3)
    stream = jnp.zeros((1, 1, config.hidden_size))
    turn = rotation(config.rope, config.head_size, jnp.zeros((1, 1), jnp.int32))

    def layer(key: Array) -> Frozen:
        def attend(inputs: Array, query: Array, key: Array, value: Array, hooks: Hooks) -> tuple[Array, None]:
            return query, None

        return Block(config).init(key, stream, turn, attend, Hooks())["params"]

    table = (config.vocabulary_size, config.hidden_size)
    frozen = {
        "embed_tokens": 0.02 * jax.random.normal(embedding, table),
        "layers": jax.vmap(layer)(jax.random.split(layers, config.layers)),
        "norm": jnp.ones(config.hidden_size),
    }
    return frozen if config.tied else frozen | {"lm_head": 0.02 * jax.random.normal(head, table)}


@cache
def shapes(config: DecoderConfig) -> Frozen:
    """The tree of weights as `ShapeDtypeStruct`s: what a checkpoint must hold and adapters are counted on."""
    return jax.eval_shape(lambda: init(jax.random.key(0), config))


def all_positions(batch: Batch, hooks: Hooks) -> Int[Array, "B _"]:
    """Those of the residual stream `[B, P+T]`: a prompt takes 0..P-1, and the text counts on."""
    positions = batch.positions
    if hooks.prompt is None:
        return positions
    rows, length = positions.shape[0], hooks.prompt.shape[-2]
    before = jnp.broadcast_to(jnp.arange(length), (rows, length))
    return jnp.concatenate([before, jnp.where(positions == NEVER, NEVER, positions + length)], axis=1)


def embed(config: DecoderConfig, frozen: Frozen, batch: Batch, hooks: Hooks) -> tuple[Array, Array]:
    """The residual stream `[B, P+T, D]` that enters layer 0, and its positions."""
    table = frozen["embed_tokens"]
    stream = sharding.looked_up(table, table[batch.tokens])
    if hooks.prompt is not None:
        prompt = jnp.broadcast_to(hooks.prompt, (stream.shape[0], *hooks.prompt.shape[-2:])).astype(stream.dtype)
        stream = jnp.concatenate([prompt, stream], axis=1)
    return stream, all_positions(batch, hooks)


def hidden(
    config: DecoderConfig,
    frozen: Frozen,
    batch: Batch,
    hooks: Hooks | None = None,
    remat: str = "dots",
    at: Int[Array, "B M"] | None = None,
) -> Float[Array, "B _ D"]:
    """The states that the head reads, after the last norm: at these tokens of each row, or without `at` at all T.

    Where the tokens are few, the last layer computes little more than their states.
    """
    hooks = Hooks() if hooks is None else hooks
    time = batch.tokens.shape[1]
    if at is None:
        return final_norm(config, frozen, forward(config, frozen, batch, hooks, remat)[0][:, -time:])
    at = at + (0 if hooks.prompt is None else hooks.prompt.shape[-2])
    if at.shape[1] <= min(FEW_PLACES, time // 2):
        return final_norm(config, frozen, forward_last(config, frozen, batch, hooks, remat, at)[0])
    return final_norm(config, frozen, picked(forward(config, frozen, batch, hooks, remat)[0], at))


def forward(
    config: DecoderConfig, frozen: Frozen, batch: Batch, hooks: Hooks, remat: str, return_cache: bool = False
) -> tuple[Float[Array, "B _ D"], Cache | None]:
    """The residual stream `[B, P+T, D]` after the last layer (P: the prompt), on request with every layer's cache."""
    stream, positions = embed(config, frozen, batch, hooks)
    step = _layer(config, batch, positions, hooks, return_cache)
    stream, kept = loop(config, frozen["layers"], _checked(stream, batch, positions, hooks), hooks, step, remat)
    return stream, _as_cache(config, kept, positions)


def forward_last(
    config: DecoderConfig,
    frozen: Frozen,
    batch: Batch,
    hooks: Hooks,
    remat: str,
    at: Int[Array, "B M"],
    return_cache: bool = False,
) -> tuple[Float[Array, "B M D"], Cache | None]:
    """`forward` at M positions of each row, counted with the prompt.

    The last layer computes its keys and values at all positions, and everything else at these alone.
    """
    stream, positions = embed(config, frozen, batch, hooks)
    step = _layer(config, batch, positions, hooks, return_cache)
    stream = _checked(stream, batch, positions, hooks)
    stream, kept = loop(config, frozen["layers"], stream, hooks, step, remat, partial(step, at=at))
    return stream, _as_cache(config, kept, positions)


def final_norm(config: DecoderConfig, frozen: Frozen, stream: Float[Array, "... D"]) -> Float[Array, "... D"]:
    return rms_norm(stream, frozen["norm"], config.norm_epsilon)


def _layer(config: DecoderConfig, batch: Batch, positions: Array, hooks: Hooks, return_cache: bool) -> Callable:
    """(stream, weights and hooks of a layer, positions to compute or all) -> (stream, what the loop keeps)."""
    turn = rotation(config.rope, config.head_size, positions)

    def step(stream: Array, weights: Frozen, layer: Hooks, at: Array | None = None) -> tuple[Array, Any]:
        asking = picked(positions, at)
        is_ordinary = _is_ordinary(batch, hooks) and at is None

        def attend(inputs: Array, query: Array, key: Array, value: Array, layer: Hooks) -> tuple[Array, Any]:
            read = attend_with(query, key, value, asking, positions, config.window, layer, is_ordinary)
            return read, heads_in_front(key, value) if return_cache else None

        return Block(config).apply({"params": weights}, stream, turn, attend, layer, at)  # type: ignore[return-value]

    return step


def _as_cache(config: DecoderConfig, kept: tuple[Array, Array] | None, positions: Array) -> Cache | None:
    if kept is None:
        return None
    return Cache(*kept, jnp.broadcast_to(positions, (config.layers, *positions.shape)))


def _is_ordinary(batch: Batch, hooks: Hooks) -> bool:
    return batch.right_padded and hooks.cache is None


def _checked(stream: Array, batch: Batch, positions: Array, hooks: Hooks) -> Array:
    if not _is_ordinary(batch, hooks):
        return stream
    return jnp.where(ordinary(positions, hooks.prefix)[:, None, None], stream, jnp.nan)


def logits(frozen: Frozen, states: Float[Array, "... D"]) -> Float[Array, "... V"]:
    """float32 scores of the next token; for tests and for a few positions at a time."""
    head = sharding.head(frozen.get("lm_head", frozen["embed_tokens"]))
    states = sharding.everywhere(states)
    scores = product(states.reshape(-1, states.shape[-1]), head, jnp.float32)
    return sharding.scored(head, scores.reshape(*states.shape[:-1], -1))


def token_logprobs(frozen: Frozen, states: Float[Array, "B M D"], targets: Int[Array, "B M"]) -> Float[Array, "B M"]:
    """log p(target) (float32) read from the states of M positions a row, a chunk of positions at a time.

    No [B, M, V] array exists, forward or backward: each chunk's logits are computed again for its gradient.
    """
    return _in_chunks(frozen, states, targets, _logprob)


def token_scores(
    frozen: Frozen, states: Float[Array, "B M D"], targets: Int[Array, "B M"]
) -> tuple[Float[Array, "B M"], Float[Array, "B M"]]:
    """`token_logprobs`, and beside each the log p of the likeliest token there."""

    def read(scores: Array, targets: Array) -> tuple[Array, Array]:
        return _logprob(scores, targets), jnp.max(scores, axis=-1) - jax.nn.logsumexp(scores, axis=-1)

    return _in_chunks(frozen, states, targets, read)


def _logprob(scores: Array, targets: Array) -> Array:
    chosen = jnp.take_along_axis(scores, targets[..., None], axis=-1)[..., 0]
    return chosen - jax.nn.logsumexp(scores, axis=-1)


def _in_chunks(frozen: Frozen, states: Array, targets: Array, read: Callable) -> Any:
    """`read(logits [B, m, V], targets [B, m])` for all M positions, m at a time; what it returns is joined again."""
    rows, count = targets.shape
    chunk = max(m for m in range(1, count + 1) if count % m == 0 and (m == 1 or rows * m <= HEAD_POSITIONS))

    @jax.checkpoint
    def part(slices: tuple[Array, Array]) -> Any:
        return read(logits(frozen, slices[0]), slices[1])

    def split(leaf: Array) -> Array:
        return jnp.moveaxis(leaf.reshape(rows, -1, chunk, *leaf.shape[2:]), 1, 0)

    pieces = jax.lax.map(part, (split(states), split(targets)))
    return jax.tree.map(lambda piece: jnp.moveaxis(piece, 0, 1).reshape(rows, count), pieces)
