"""One Flax decoder for Llama (arXiv:2302.13971) and Mistral (arXiv:2310.06825), with the few seams of hooks.py.

Flax declares one block; the loop over layers is `lax.scan` over its `apply`. Weights keep the layout of Hugging Face
(`[out, in]`, heads apart), stacked over layers:

    embed_tokens [V, D] · norm [D] · lm_head [V, D], where it is not tied
    layers: input_layernorm, post_attention_layernorm [L, D] · q_proj [L, N, H, D] · k_proj, v_proj [L, K, H, D]
            o_proj [L, D, N, H] · gate_proj, up_proj [L, F, D] · down_proj [L, D, F]
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.extend.core import primitives
from jaxtyping import Array, Float, Int

from jaxprefix.models import places
from jaxprefix.models.attention import (
    RESIDUALS,
    attention,
    causal,
    further,
    heads_in_front,
    ordinary,
    per_row,
    rotation,
)
from jaxprefix.models.block import Block, product, rms_norm
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.hooks import NEVER, Cache, Hooks

Frozen = Any  # the tree of weights above

# What picks one layer's weights from the stack, and lays them out for a product.
PICKING = (primitives.dynamic_slice_p, primitives.squeeze_p, primitives.reshape_p)
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
    positions: Array,
    window: int | None,
    hooks: Hooks,
    is_ordinary: bool = False,
) -> Array:
    """The layer's attention: prefix or cache and text share one softmax; the gated keys have their own."""
    if hooks.cache is not None:
        read = further(query, keys, values, positions, hooks.cache, window)
    else:
        read = causal(query, keys, values, positions, hooks.prefix, window, is_ordinary)
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


def shapes(config: DecoderConfig) -> Frozen:
    """The tree of weights as `ShapeDtypeStruct`s: what a checkpoint must hold and adapters are counted on."""
    return jax.eval_shape(lambda: init(jax.random.key(0), config))


def embed(config: DecoderConfig, frozen: Frozen, batch: Batch, hooks: Hooks) -> tuple[Array, Array]:
    """The residual stream `[B, P+T, D]` that enters layer 0, and its positions; a prompt takes positions 0..P-1."""
    table, positions = frozen["embed_tokens"], batch.positions
    stream = places.looked_up(table, table[batch.tokens])
    if hooks.prompt is None:
        return stream, positions
    rows, length = stream.shape[0], hooks.prompt.shape[-2]
    prompt = jnp.broadcast_to(hooks.prompt, (rows, *hooks.prompt.shape[-2:])).astype(stream.dtype)
    before = jnp.broadcast_to(jnp.arange(length), (rows, length))
    after = jnp.where(positions == NEVER, NEVER, positions + length)
    return jnp.concatenate([prompt, stream], axis=1), jnp.concatenate([before, after], axis=1)


def hidden(
    config: DecoderConfig, frozen: Frozen, batch: Batch, hooks: Hooks | None = None, remat: str = "dots"
) -> Float[Array, "B T D"]:
    """What the head reads at every token of the batch (a prompt's own positions are dropped), after the last norm."""
    return run(config, frozen, batch, hooks, remat, keep=False)[0][:, -batch.tokens.shape[1] :]


def run(
    config: DecoderConfig, frozen: Frozen, batch: Batch, hooks: Hooks | None, remat: str, keep: bool
) -> tuple[Float[Array, "B _ D"], Cache | None]:
    """States at all positions, a prompt's included; with `keep` also every layer's cache of them."""
    hooks = Hooks() if hooks is None else hooks
    stream, positions = embed(config, frozen, batch, hooks)
    is_ordinary = batch.right_padded and hooks.cache is None
    if is_ordinary:
        stream = jnp.where(ordinary(positions, hooks.prefix)[:, None, None], stream, jnp.nan)
    turn = rotation(config.rope, config.head_size, positions)

    def attend(inputs: Array, query: Array, key: Array, value: Array, layer: Hooks) -> tuple[Array, Any]:
        read = attend_with(query, key, value, positions, config.window, layer, is_ordinary)
        return read, heads_in_front(key, value) if keep else None

    def step(stream: Array, weights: Frozen, layer: Hooks) -> tuple[Array, Any]:
        return Block(config).apply({"params": weights}, stream, turn, attend, layer)  # type: ignore[return-value]

    stream, kept = loop(config, frozen["layers"], stream, hooks, step, remat)
    memory = Cache(kept[0], kept[1], jnp.broadcast_to(positions, (config.layers, *positions.shape))) if keep else None
    return rms_norm(stream, frozen["norm"], config.norm_epsilon), memory


def loop(
    config: DecoderConfig, layers: Frozen, stream: Array, hooks: Hooks, step: Callable, remat: str
) -> tuple[Array, Any]:
    """Runs the stream through all layers: those below the first hook apart, because nothing there is differentiated.

    The body indexes the whole stack: a slice such as `w[2:]` would copy the model.
    """

    def weights(index: Array) -> Frozen:
        return {
            name: places.gathered(name, jax.lax.dynamic_index_in_dim(stack, index, keepdims=False))
            for name, stack in layers.items()
        }

    def below(stream: Array, index: Array) -> tuple[Array, Any]:
        return step(stream, weights(index), Hooks())

    def above(stream: Array, slices: tuple[Array, Hooks]) -> tuple[Array, Any]:
        return step(stream, weights(slices[0]), slices[1])

    indices, first = jnp.arange(config.layers), hooks.first
    seams = jax.tree.map(lambda leaf: leaf[first:], hooks.per_layer)
    upper = checkpointed(above, remat)
    if not first:
        return jax.lax.scan(upper, stream, (indices, seams))
    stream, low = jax.lax.scan(below, stream, indices[:first])
    stream, high = jax.lax.scan(upper, stream, (indices[first:], seams))
    return stream, jax.tree.map(lambda *parts: jnp.concatenate(parts), low, high)


def checkpointed(body: Callable, remat: str) -> Callable:
    """Recomputes a layer in the backward pass: all of it ("full"), all but its matrix products ("dots"; of a kernel for
    attention, its output), or nothing but the picking of its weights ("none"), which would otherwise be kept: the model
    a second time.
    """

    def all_but_weights(primitive: Any, *_: Any, **__: Any) -> bool:
        return primitive not in PICKING

    saveable = jax.checkpoint_policies
    policies = {
        "full": None,
        "dots": saveable.save_from_both_policies(
            saveable.dots_with_no_batch_dims_saveable, saveable.save_only_these_names(RESIDUALS)
        ),
        "none": all_but_weights,
    }
    if remat not in policies:
        raise ValueError(f"remat {remat!r} is unknown; expected {', '.join(policies)}")
    return jax.checkpoint(body, policy=policies[remat], prevent_cse=False)


def logits(frozen: Frozen, states: Float[Array, "... D"]) -> Float[Array, "... V"]:
    """float32 scores of the next token; for tests and for a few positions at a time."""
    head = places.head(frozen.get("lm_head", frozen["embed_tokens"]))
    states = places.everywhere(states)
    scores = product(states.reshape(-1, states.shape[-1]), head, jnp.float32)
    return places.scored(head, scores.reshape(*states.shape[:-1], -1))


def token_logprobs(
    frozen: Frozen, states: Float[Array, "B T D"], at: Int[Array, "B M"], targets: Int[Array, "B M"]
) -> Float[Array, "B M"]:
    """log p(target) (float32) read from `states` at the M positions `at` of each row, a chunk of positions at a time.

    No [B, T, V] array exists, forward or backward: each chunk's logits are computed again for its gradient.
    """
    return _at_positions(frozen, states, at, targets, _logprob)


def token_scores(
    frozen: Frozen, states: Float[Array, "B T D"], at: Int[Array, "B M"], targets: Int[Array, "B M"]
) -> tuple[Float[Array, "B M"], Float[Array, "B M"]]:
    """`token_logprobs`, and beside each the log p of the likeliest token there."""

    def read(scores: Array, targets: Array) -> tuple[Array, Array]:
        return _logprob(scores, targets), jnp.max(scores, axis=-1) - jax.nn.logsumexp(scores, axis=-1)

    return _at_positions(frozen, states, at, targets, read)


def _logprob(scores: Array, targets: Array) -> Array:
    chosen = jnp.take_along_axis(scores, targets[..., None], axis=-1)[..., 0]
    return chosen - jax.nn.logsumexp(scores, axis=-1)


def _at_positions(frozen: Frozen, states: Array, at: Array, targets: Array, read: Callable) -> Any:
    """`read(logits [B, m, V], targets [B, m])` for all M positions, m at a time; what it returns is joined again."""
    rows, count = at.shape
    states = jnp.take_along_axis(states, at[..., None], axis=1)
    chunk = max(m for m in range(1, count + 1) if count % m == 0 and (m == 1 or rows * m <= HEAD_POSITIONS))

    @jax.checkpoint
    def part(slices: tuple[Array, Array]) -> Any:
        return read(logits(frozen, slices[0]), slices[1])

    def split(leaf: Array) -> Array:
        return jnp.moveaxis(leaf.reshape(rows, -1, chunk, *leaf.shape[2:]), 1, 0)

    pieces = jax.lax.map(part, (split(states), split(targets)))
    return jax.tree.map(lambda piece: jnp.moveaxis(piece, 0, 1).reshape(rows, count), pieces)
