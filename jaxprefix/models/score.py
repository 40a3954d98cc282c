"""Likelihood of choices over a shared prompt: the prompt is run once, and every choice reads its cache."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxprefix.models import decoder
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.decode import extend, prefill
from jaxprefix.models.decoder import Batch, Frozen
from jaxprefix.models.hooks import NEVER, Hooks


def choice_logprobs(
    config: DecoderConfig,
    frozen: Frozen,
    batch: Batch,
    hooks: Hooks,
    choices: Int[Array, "C B M"],
    weights: Float[Array, "C B M"],
) -> Float[Array, "C B"]:
    """Σ log p of each choice's tokens (weight 1; 0 in padding) after its row's prompt, float32.

    A choice of one token is read from the prompt's own last state and costs nothing more.
    """
    state, position, cache = prefill(config, frozen, batch, hooks, room=0)
    length = choices.shape[-1]

    def one(slices: tuple[Array, Array]) -> Array:
        tokens, weight = slices
        states = state[:, None]
        if length > 1:
            places = position[:, None] + jnp.arange(length - 1)
            places = jnp.where(weight[:, 1:] > 0, places, NEVER)
            further, _ = extend(config, frozen, Batch(tokens[:, :-1], places), cache, hooks)
            states = jnp.concatenate([states, further], axis=1)
        at = jnp.broadcast_to(jnp.arange(length), tokens.shape)
        return jnp.sum(decoder.token_logprobs(frozen, states, at, tokens) * weight, axis=1)

    return jax.lax.map(one, (choices, weights))
