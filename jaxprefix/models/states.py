"""What the layers compute for texts, as one vector or number per row: the measurements of probe/.

No state of a token is kept beyond its layer, and no [B, T, V] array exists.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from jaxprefix.models.attention import broadcast_rows
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.decoder import Batch, by_window, embed, final_norm, layer_step, logits, token_logprobs
from jaxprefix.models.hooks import NEVER, Frozen, Hooks, visible
from jaxprefix.models.scan import apply_layers

POOLINGS = ("weighted", "last")  # the mean over tokens weighted by their position 1..T, or the last token


@struct.dataclass
class LayerStates:
    """The measurements of rows of text. Those that were not requested are None.

    A dimension of L + 1 has the embeddings first, and then the output of each layer before any final norm.
    """

    vectors: Float[Array, "M B D"] | None = None  # M = L + 1; of the text alone
    share: Float[Array, "L B N"] | None = None  # of attention on virtual tokens, mean over the queries of text
    uniform_share: Float[Array, "L B"] | None = None  # the same if each query attended to all its keys alike
    lens: Float[Array, "M B C"] | None = None  # p(token) of C tokens at the last position
    entropy: Float[Array, "M B"] | None = None  # in nats, at the last position
    loss: Float[Array, " B"] | None = None  # -Σ log p over all tokens but the first
    active: Int[Array, "L B F"] | None = None  # the number of tokens at which a feed-forward neuron is above 0


def layer_states(
    config: DecoderConfig,
    weights: Frozen,
    batch: Batch,
    hooks: Hooks,
    pooling: str | None = None,
    attention: bool = False,
    lens_tokens: Int[Array, "B C"] | None = None,
    loss: bool = False,
    neurons: bool = False,
) -> LayerStates:
    """Runs right-padded rows through all layers. The weights are stacks (layers.py).

    Args:
        pooling: how the states of a text become one vector, "weighted" or "last"; None for no vectors.
        attention: measure the attention on virtual tokens.
        lens_tokens: the tokens of the logit lens; None for none. It applies the final norm and the head to the state of
            the last token in every layer.
        loss: sum the loss of all tokens.
        neurons: count the tokens at which each feed-forward neuron is active.
    """
    time = batch.tokens.shape[1]
    stream, positions = embed(config, weights, batch, hooks)
    prompt_length = stream.shape[1] - time
    lengths = jnp.sum(batch.positions != NEVER, axis=1)

    def read(stream: Array) -> tuple[Array | None, Array | None, Array | None]:
        text = stream[:, prompt_length:]
        last = jnp.take_along_axis(text, (lengths - 1)[:, None, None], axis=1)[:, 0]
        vectors = None
        if pooling is not None:
            vectors = last.astype(jnp.float32) if pooling == "last" else _weighted_mean(text, batch.positions != NEVER)
        if lens_tokens is None:
            return vectors, None, None
        logprobs = jax.nn.log_softmax(logits(weights, final_norm(config, weights, last)))
        chosen = jnp.exp(jnp.take_along_axis(logprobs, lens_tokens, axis=1))
        return vectors, chosen, -jnp.sum(jnp.exp(logprobs) * logprobs, axis=1)

    def keep(query: Array, keys: Array, values: Array, layer: Hooks, kind: Array | int) -> tuple[Array, Array]:
        def share(window: int | None, query: Array, keys: Array, layer: Hooks) -> tuple[Array, Array]:
            return virtual_share(query, keys, positions, layer, prompt_length, window)

        return by_window(config, kind, positions.shape[1], share, query, keys, layer)

    apply: Callable = layer_step(config, batch, positions, keep if attention else None, keep_gate=neurons)

    def step(stream: Array, layer_weights: Frozen, layer: Hooks, kind: Array | int) -> tuple[Array, tuple]:
        stream, kept = apply(stream, layer_weights, layer, kind)
        shares, gate = kept if neurons else (kept, None)
        return stream, (read(stream), shares, None if gate is None else count(gate[:, prompt_length:]))

    def count(gate: Array) -> Array:
        return jnp.sum((gate > 0) & (batch.positions != NEVER)[..., None], axis=1, dtype=jnp.int32)

    start = read(stream)
    stream, (by_layer, shares, active) = apply_layers(config, weights["layers"], stream, hooks, step, "full")
    vectors, chosen, entropy = jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), start, by_layer)
    share, uniform = shares if attention else (None, None)
    total = _loss(config, weights, batch, stream[:, prompt_length:], lengths) if loss else None
    return LayerStates(vectors, share, uniform, chosen, entropy, total, active)


def _weighted_mean(states: Float[Array, "B T D"], present: Bool[Array, "B T"]) -> Float[Array, "B D"]:
    """The mean in float32, weighted by the position 1..T of the token (Muennighoff, arXiv:2202.08904)."""
    weight = jnp.where(present, jnp.arange(1, states.shape[1] + 1), 0).astype(jnp.float32)
    weight = weight / jnp.maximum(jnp.sum(weight, axis=1, keepdims=True), 1)
    return jnp.einsum("bt,btd->bd", weight, states.astype(jnp.float32), precision="highest")


def _loss(
    config: DecoderConfig, weights: Frozen, batch: Batch, stream: Float[Array, "B T D"], lengths: Int[Array, " B"]
) -> Float[Array, " B"]:
    targets = jnp.roll(batch.tokens, -1, axis=1)
    logprobs = token_logprobs(weights, final_norm(config, weights, stream), targets)
    return -jnp.sum(jnp.where(jnp.arange(targets.shape[1]) < (lengths - 1)[:, None], logprobs, 0), axis=1)


def virtual_share(
    query: Float[Array, "B S N H"],
    keys: Float[Array, "B S K H"],
    positions: Int[Array, "B S"],
    layer: Hooks,
    prompt_length: int,
    window: int | None,
) -> tuple[Float[Array, "B N"], Float[Array, " B"]]:
    """Σ softmax weight over the virtual tokens, mean over the queries of text, and the same for a uniform softmax.

    Virtual tokens are those of a prefix that shares the softmax of the text, and a soft prompt, which is the first
    `prompt_length` positions.
    """
    rows, _, heads, size = query.shape
    virtual, key_positions = prompt_length, positions
    if layer.prefix is not None:
        slots = layer.prefix.positions.shape[-1]
        keys = jnp.concatenate([broadcast_rows(layer.prefix.keys, keys), keys], axis=1)
        key_positions = jnp.concatenate([jnp.broadcast_to(layer.prefix.positions, (rows, slots)), positions], axis=1)
        virtual += slots
    if not virtual:
        return jnp.zeros((rows, heads)), jnp.zeros(rows)
    seen = visible(positions[:, prompt_length:], key_positions, window)
    is_text = positions[:, prompt_length:] != NEVER
    groups = keys.shape[2]

    def of_row(slices: tuple[Array, Array, Array, Array]) -> tuple[Array, Array]:
        query, keys, seen, is_text = slices
        apart = query.reshape(query.shape[0], groups, -1, size)
        scores = jnp.einsum("tkgh,skh->kgts", apart, keys, preferred_element_type=jnp.float32) * size**-0.5
        weights = jax.nn.softmax(jnp.where(seen, scores, jnp.finfo(jnp.float32).min))
        share = jnp.sum(weights[..., :virtual], axis=-1).reshape(heads, -1)
        uniform = jnp.sum(seen[:, :virtual], axis=1) / jnp.maximum(jnp.sum(seen, axis=1), 1)
        count = jnp.maximum(jnp.sum(is_text), 1)
        is_query = is_text.astype(jnp.float32) / count
        return share @ is_query, uniform @ is_query

    # One row at a time: the scores of a batch would be [B, N, T, S].
    return jax.lax.map(of_row, (query[:, prompt_length:], keys, seen, is_text))
