"""One Flax decoder for Llama (arXiv:2302.13971) and Mistral (arXiv:2310.06825), with the seams of hooks.py.

Flax declares one block, and scan.py runs its `apply` over the layers. Weights keep the layout of Hugging Face
(`[out, in]`, with a dimension for the heads). Here they are stacked over layers; inference reads them layer by layer
(layers.py):

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
from jaxprefix.models.attention import (
    attend_cached,
    attend_prefill,
    attention,
    broadcast_rows,
    cache_layout,
    platform,
    rotation,
)
from jaxprefix.models.block import Block, gather_tokens, norm_of
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.hooks import NEVER, Cache, Frozen, Hooks
from jaxprefix.models.parameters import weights_of
from jaxprefix.models.products import matmul
from jaxprefix.models.scan import apply_layers

MAX_LAST_POSITIONS = 128  # the last layer computes this many positions alone, if they are at most half of the row
HEAD_POSITIONS = 512  # logits exist for about this many positions at once: 512 × 128,256 × 4 bytes are 263 MB


@struct.dataclass
class Batch:
    """Rows of tokens. `positions` counts the text from 0 and is NEVER in padding, left or right.

    Tokens after a cache may belong to different segments: each attends to the cache and to its own segment.
    """

    tokens: Int[Array, "B T"]
    positions: Int[Array, "B T"]
    segments: Int[Array, "B T"] | None = None
    is_right_padded: bool = struct.field(pytree_node=False, default=False)  # only `right_padded` sets it

    @classmethod
    def right_padded(cls, tokens: Int[Array, "B T"], lengths: Int[Array, " B"]) -> "Batch":
        """Rows whose text is their first `lengths` tokens. They can use a faster attention."""
        index = jnp.arange(tokens.shape[1])
        return cls(tokens, jnp.where(index < lengths[:, None], index, NEVER), is_right_padded=True)


def layer_attention(
    query: Array,
    keys: Array,
    values: Array,
    query_positions: Array,
    positions: Array,
    window: int | None,
    hooks: Hooks,
    right_padded: bool = False,
    segments: Array | None = None,
) -> Array:
    """Attention of one layer: the prefix or cache and the text share a softmax, and gated keys have their own.

    `query_positions` are the positions of the queries, `positions` those of the text.
    """
    if isinstance(hooks.cache, Cache):
        read = attend_cached(query, keys, values, query_positions, positions, hooks.cache, window, segments)
    else:
        read = attend_prefill(query, keys, values, query_positions, positions, hooks.prefix, window, right_padded)
    gated = hooks.gated
    if gated is not None:
        own = attention(query, broadcast_rows(gated.keys, keys), broadcast_rows(gated.values, values))
        read = read + (gated.gate[..., None, :, None] * own).astype(read.dtype)
    return read


def init(key: Array, config: DecoderConfig) -> Frozen:
    """Random float32 weights, initialised as in Hugging Face: normal with 0.02, norms one, biases zero."""
    frozen: Frozen = {"layers": {}}
    rows = weights_of(config).values()
    for row, part in zip(rows, jax.random.split(key, len(rows)), strict=True):
        shape = (config.layers, *row.shape(config)) if row.in_layers else row.shape(config)
        place = frozen["layers"] if row.in_layers else frozen
        normal = 0.02 * jax.random.normal(part, shape)
        start = {"norm": jnp.full(shape, 1 - config.norm_offset), "bias": jnp.zeros(shape)}
        place[row.name] = start.get(row.role, normal)
    return frozen


@cache
def shapes(config: DecoderConfig) -> Frozen:
    """The tree of weights as `ShapeDtypeStruct`s."""
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
    """The input of layer 0, `[B, P+T, D]`, and its positions."""
    table = frozen["embed_tokens"]
    stream = sharding.shard_embeddings(table, table[batch.tokens])
    if hooks.prompt is not None:
        prompt = jnp.broadcast_to(hooks.prompt, (stream.shape[0], *hooks.prompt.shape[-2:])).astype(stream.dtype)
        stream = jnp.concatenate([prompt, stream], axis=1)
    stream = stream if config.embedding_scale == 1 else stream * jnp.asarray(config.embedding_scale, stream.dtype)
    return stream, all_positions(batch, hooks)


def hidden_states(
    config: DecoderConfig,
    frozen: Frozen,
    batch: Batch,
    hooks: Hooks | None = None,
    remat: str = "dots",
    token_indices: Int[Array, "B M"] | None = None,
) -> Float[Array, "B _ D"]:
    """The input of the language model head: the states after the final norm.

    `token_indices` selects M tokens of each row; without it, the states of all T tokens are returned. If M is small,
    the last layer computes little more than the selected states.
    """
    hooks = Hooks() if hooks is None else hooks
    time = batch.tokens.shape[1]
    if token_indices is None:
        return final_norm(config, frozen, forward(config, frozen, batch, hooks, remat)[0][:, -time:])
    token_indices = token_indices + (0 if hooks.prompt is None else hooks.prompt.shape[-2])
    if token_indices.shape[1] <= min(MAX_LAST_POSITIONS, time // 2):
        return final_norm(config, frozen, forward_last(config, frozen, batch, hooks, remat, token_indices)[0])
    return final_norm(config, frozen, gather_tokens(forward(config, frozen, batch, hooks, remat)[0], token_indices))


def forward(
    config: DecoderConfig, frozen: Frozen, batch: Batch, hooks: Hooks, remat: str, return_cache: bool = False
) -> tuple[Float[Array, "B _ D"], tuple[Cache, ...] | None]:
    """The residual stream after the last layer, `[B, P+T, D]` with P soft prompt vectors, and all keys and values.

    A cache, given or returned, needs weights that are not stacked (layers.py).
    """
    stream, positions = embed(config, frozen, batch, hooks)
    step = layer_step(config, batch, positions, _cached if return_cache else None)
    stream, kept = apply_layers(config, frozen["layers"], stream, hooks, step, remat)
    return stream, _as_cache(kept, positions)


def forward_last(
    config: DecoderConfig,
    frozen: Frozen,
    batch: Batch,
    hooks: Hooks,
    remat: str,
    token_indices: Int[Array, "B M"],
    return_cache: bool = False,
) -> tuple[Float[Array, "B M D"], tuple[Cache, ...] | None]:
    """`forward`, but the last layer computes the outputs of M positions per row only.

    The positions count the soft prompt. The keys and values of the last layer are computed at all positions.
    """
    stream, positions = embed(config, frozen, batch, hooks)
    step = layer_step(config, batch, positions, _cached if return_cache else None)
    stream, kept = apply_layers(config, frozen["layers"], stream, hooks, step, remat, partial(step, at=token_indices))
    return stream, _as_cache(kept, positions)


def final_norm(config: DecoderConfig, frozen: Frozen, stream: Float[Array, "... D"]) -> Float[Array, "... D"]:
    return norm_of(config, stream, frozen["norm"])


def layer_step(
    config: DecoderConfig,
    batch: Batch,
    positions: Array,
    keep: Callable[[Array, Array, Array, Hooks, Array | int], Any] | None = None,
    keep_gate: bool = False,
) -> Callable:
    """A function (stream, weights, hooks, kind, token indices or None) -> (stream, what `keep` returns) for one layer.

    `kind` is the layer's index in `config.kinds`. `keep` takes the queries, keys and values of the text, the hooks of
    the layer, and its kind. With `keep_gate` the second result is (what `keep` returns, the activations of the
    feed-forward neurons, [B, T, F]).
    """
    turns, time = rotations(config, positions), positions.shape[1]

    def step(
        stream: Array, weights: Frozen, layer: Hooks, kind: Array | int, at: Array | None = None
    ) -> tuple[Array, Any]:
        query_positions = gather_tokens(positions, at)
        right_padded = batch.is_right_padded and at is None

        def attend(inputs: Array, query: Array, key: Array, value: Array, layer: Hooks) -> tuple[Array, Any]:
            def read(window: int | None, query: Array, key: Array, value: Array, layer: Hooks) -> Array:
                places = query_positions, positions
                return layer_attention(query, key, value, *places, window, layer, right_padded, batch.segments)

            states = by_window(config, kind, time, read, query, key, value, layer)
            return states, keep(query, key, value, layer, kind) if keep else None

        turn = jax.tree.map(lambda each: each[kind], turns)
        inputs: Any = ({"params": weights}, stream, turn, attend, layer, at)
        if not keep_gate:
            return Block(config).apply(*inputs)  # type: ignore[return-value]
        (stream, kept), sown = Block(config).apply(*inputs, mutable=["intermediates"])
        return stream, (kept, sown["intermediates"]["gate"][0])

    return step


def _cached(query: Array, keys: Array, values: Array, layer: Hooks, kind: Array | int) -> tuple[Array, Array]:
    """The cache of a layer. On CPU it is float32: XLA would convert all of a bfloat16 cache, and back, at each step."""
    if platform() == "cpu":
        keys, values = keys.astype(jnp.float32), values.astype(jnp.float32)
    return cache_layout(keys, values)


def rotations(config: DecoderConfig, positions: Int[Array, "B T"], scaled: bool = True) -> tuple[Array, Array]:
    """Cosines and sines `[kinds, B, T, H/2]` for each kind of layer.

    `scaled` is for queries and keys, which YaRN also multiplies by its attention factor. Without it they only rotate,
    which moves keys to other positions.
    """
    turns = [rotation(kind.rope, config.head_size, positions) for kind in config.kinds]
    factors = [kind.rope.attention_factor if kind.rope and scaled else 1 for kind in config.kinds]
    turns = [(c, s) if factor == 1 else (factor * c, factor * s) for factor, (c, s) in zip(factors, turns, strict=True)]
    return jax.tree.map(lambda *each: jnp.stack(each), *turns)


def by_window(config: DecoderConfig, kind: Array | int, time: int, read: Callable[..., Any], *states: Any) -> Any:
    """`read(window, *states)` with the window of a layer. A loop over layers compiles it once for each window."""
    if isinstance(kind, int):
        return read(config.kinds[kind].window, *states)
    windows = [each.window if each.window and each.window < time else None for each in config.kinds]
    if len(set(windows)) == 1:
        return read(windows[0], *states)
    return jax.lax.switch(kind, [partial(read, window) for window in windows], *states)


def _as_cache(kept: tuple | None, positions: Array) -> tuple[Cache, ...] | None:
    """The cache, from the keys and values that the layers returned; None if they returned none."""
    if not kept or kept[0] is None:
        return None
    return tuple(Cache(keys, values, positions) for keys, values in kept)


def logits(frozen: Frozen, states: Float[Array, "... D"]) -> Float[Array, "... V"]:
    """Logits of the next token in float32. For few positions: `token_logprobs` needs less memory."""
    return _logits(_head(frozen), states)


def token_logprobs(frozen: Frozen, states: Float[Array, "B M D"], targets: Int[Array, "B M"]) -> Float[Array, "B M"]:
    """log p(target) in float32, for the states of M positions per row.

    The logits are computed in chunks of positions: no [B, M, V] array exists. With a frozen head the forward pass also
    computes each state's gradient, and the backward pass needs no logits. Otherwise it computes them again.
    """
    return _logprobs(_head(frozen), states, targets)


def token_scores(
    frozen: Frozen, states: Float[Array, "B M D"], targets: Int[Array, "B M"]
) -> tuple[Float[Array, "B M"], Float[Array, "B M"]]:
    """`token_logprobs`, and the log p of the most likely token at each position."""

    def read(scores: Array, targets: Array) -> tuple[Array, Array]:
        return _logprob(scores, targets), jnp.max(scores, axis=-1) - jax.nn.logsumexp(scores, axis=-1)

    return _in_chunks(_head(frozen), states, targets, read)


def _head(frozen: Frozen) -> Float[Array, "V D"]:
    return sharding.shard_head(frozen.get("lm_head", frozen["embed_tokens"]))


def _logits(head: Array, states: Array) -> Array:
    states = sharding.replicate(states)
    scores = matmul(states.reshape(-1, states.shape[-1]), head, jnp.float32)
    return sharding.shard_logits(head, scores.reshape(*states.shape[:-1], -1))


def _logprob(scores: Array, targets: Array) -> Array:
    chosen = jnp.take_along_axis(scores, targets[..., None], axis=-1)[..., 0]
    return chosen - jax.nn.logsumexp(scores, axis=-1)


@jax.custom_vjp
def _logprobs(head: Array, states: Array, targets: Array) -> Array:
    return _in_chunks(head, states, targets, _logprob)


def _logprobs_forward(head: Any, states: Any, targets: Any) -> tuple[Array, Any]:
    """The log p, and what the backward pass needs: the gradient of each state, or with a learnt head a function."""
    if head.perturbed:
        in_chunks = partial(_in_chunks, targets=targets.value, read=_logprob)
        return jax.vjp(in_chunks, head.value, states.value)

    def read(scores: Array, targets: Array) -> tuple[Array, Array]:
        """log p(target), and its gradient with respect to the state: (one-hot - p) · head."""
        chosen = jnp.arange(scores.shape[-1]) == targets[..., None]
        slopes = (chosen - jax.nn.softmax(scores, axis=-1)).astype(head.value.dtype)
        gradient = jnp.einsum("bmv,vd->bmd", slopes, head.value, preferred_element_type=jnp.float32)
        return _logprob(scores, targets), gradient.astype(states.value.dtype)

    found, gradients = _in_chunks(head.value, states.value, targets.value, read)
    return found, gradients


def _logprobs_backward(kept: Array | Callable[[Array], tuple[Array, Array]], cotangent: Array) -> tuple:
    if isinstance(kept, jax.Array):
        return None, (cotangent[..., None] * kept).astype(kept.dtype), None
    return *kept(cotangent), None


_logprobs.defvjp(_logprobs_forward, _logprobs_backward, symbolic_zeros=True)


def _in_chunks(head: Array, states: Array, targets: Array, read: Callable) -> Any:
    """Applies `read(logits [B, m, V], targets [B, m])` to chunks of m positions and concatenates the results."""
    rows, count = targets.shape
    chunk = max(m for m in range(1, count + 1) if count % m == 0 and (m == 1 or rows * m <= HEAD_POSITIONS))

    @jax.checkpoint
    def part(slices: tuple[Array, Array]) -> Any:
        return read(_logits(head, slices[0]), slices[1])

    def split(leaf: Array) -> Array:
        return jnp.moveaxis(leaf.reshape(rows, -1, chunk, *leaf.shape[2:]), 1, 0)

    pieces = jax.lax.map(part, (split(states), split(targets)))
    return jax.tree.map(lambda piece: jnp.moveaxis(piece, 0, 1).reshape(rows, count, *piece.shape[3:]), pieces)
