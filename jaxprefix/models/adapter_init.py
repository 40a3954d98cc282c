"""Initial parameters of an adapter. Some methods start from a prompt that runs through the base first."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from jaxprefix.models import decoder
from jaxprefix.models.adapters import Adapter, EncodedPrompt
from jaxprefix.models.attention import rotate
from jaxprefix.models.block import Block
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.decoder import Frozen
from jaxprefix.models.hooks import Hooks, Params
from jaxprefix.models.scan import apply_layers

# (start, length) -> that many token ids: the meaning of "vocabulary" or "text:..." for a tokenizer
InitTokens = Callable[[str, int], Sequence[int]]


def init_params(adapter: Adapter, key: Array, config: DecoderConfig, frozen: Frozen, tokens: InitTokens) -> Params:
    """The parameters that training starts from, in float32."""

    def encode(start: str, length: int) -> EncodedPrompt:
        return encode_prompt(config, frozen, jnp.asarray(tokens(start, length), jnp.int32))

    return adapter.init(key, config, frozen, encode)


def abstract_params(adapter: Adapter, config: DecoderConfig) -> Params:
    """The shapes of the parameters. InputError if the adapter does not fit the decoder."""

    def make(frozen: Frozen) -> Params:
        params = init_params(adapter, jax.random.key(0), config, frozen, lambda _, length: [0] * length)
        adapter.bind(config, params, frozen)
        return params

    return jax.eval_shape(make, decoder.shapes(config))


def encode_prompt(config: DecoderConfig, frozen: Frozen, tokens: Int[Array, " P"]) -> EncodedPrompt:
    """Runs the tokens alone through the base, without a window."""
    length = tokens.shape[0]
    batch = decoder.Batch(tokens[None], jnp.arange(length)[None])
    stream, positions = decoder.embed(config, frozen, batch, Hooks())
    turns = decoder.rotations(config, positions)

    def attend(inputs: Array, query: Array, key: Array, value: Array, layer: Hooks) -> tuple[Array, PyTree]:
        return decoder.layer_attention(query, key, value, positions, positions, None, layer), (
            inputs[0],
            key[0],
            value[0],
        )

    def step(stream: Array, weights: Frozen, layer: Hooks, kind: Array | int) -> tuple[Array, PyTree]:
        turn = jax.tree.map(lambda each: each[kind], turns)
        return Block(config).apply({"params": weights}, stream, turn, attend, layer)

    _, (inputs, keys, values) = apply_layers(config, frozen["layers"], stream, Hooks(), step, "full")
    return EncodedPrompt(frozen["embed_tokens"][tokens], inputs, _moved(config, keys, -length), values)


def _moved(config: DecoderConfig, keys: Float[Array, "L P K H"], by: int) -> Float[Array, "L P K H"]:
    """The keys (float32) of tokens that are `by` positions further on: a rotation."""
    turns = decoder.rotations(config, jnp.full(keys.shape[1:2], by)[None], scaled=False)
    turn = jax.tree.map(lambda each: each[jnp.asarray(config.kind_of_layer), 0], turns)
    return rotate(keys.astype(jnp.float32), turn)
