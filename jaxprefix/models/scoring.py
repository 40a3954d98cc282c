"""Likelihood of choices over a shared prompt: the prompt is run once, and every choice reads its cache."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxprefix.models import decoder
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.decode import extend, prefill
from jaxprefix.models.decoder import Batch, Frozen
from jaxprefix.models.hooks import NEVER, Hooks


def choices(
    config: DecoderConfig,
    frozen: Frozen,
    batch: Batch,
    hooks: Hooks,
    tokens: Int[Array, "C B M"],
    lengths: Int[Array, "C B"],
) -> tuple[Float[Array, "C B"], Bool[Array, "C B"]]:
    """Of each choice (the first `lengths` of its `tokens`) after its row's prompt: Σ log p of its tokens (float32), and
    whether each of them is the likeliest at its place.

    A choice of one token is read from the prompt's own last state and costs nothing more.
    """
    state, position, cache = prefill(config, frozen, batch, hooks, room=0)
    longest = tokens.shape[-1]

    def one(slices: tuple[Array, Array]) -> tuple[Array, Array]:
        tokens, length = slices
        states, real = state[:, None], jnp.arange(longest) < length[:, None]
        if longest > 1:
            places = position[:, None] + jnp.arange(longest - 1)
            places = jnp.where(real[:, 1:], places, NEVER)
            further, _ = extend(config, frozen, Batch(tokens[:, :-1], places), cache, hooks)
            states = jnp.concatenate([states, further], axis=1)
        logprobs, best = decoder.token_scores(frozen, states, tokens)
        return jnp.sum(logprobs * real, axis=1), jnp.all((logprobs >= best) | ~real, axis=1)

    return jax.lax.map(one, (tokens, lengths))
