"""Log-likelihoods of choices after a shared prompt, which is computed once."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxprefix.models import decoder
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.decode import SharedPrompt, extend_cache, prefill
from jaxprefix.models.decoder import Batch, Frozen
from jaxprefix.models.hooks import NEVER, Hooks
from jaxprefix.models.layers import unstack_hooks


def choices(
    config: DecoderConfig,
    frozen: Frozen,
    batch: Batch,
    hooks: Hooks,
    tokens: Int[Array, "C B M"],
    lengths: Int[Array, "C B"],
    shared: SharedPrompt | None = None,
) -> tuple[Float[Array, "C B"], Bool[Array, "C B"]]:
    """For each choice after the prompt of its row: Σ log p of its tokens in float32, and whether it is the greedy
    answer.

    The first `lengths` of `tokens` are the choice. A choice of one token needs no computation beyond the prompt's.
    `batch` is what follows the shared prompt, if there is one.
    """
    state, position, cache = prefill(config, frozen, batch, hooks, 0, shared)
    longest, hooks = tokens.shape[-1], unstack_hooks(hooks)

    def one(slices: tuple[Array, Array]) -> tuple[Array, Array]:
        tokens, length = slices
        states, real = state[:, None], jnp.arange(longest) < length[:, None]
        if longest > 1:
            places = position[:, None] + jnp.arange(longest - 1)
            places = jnp.where(real[:, 1:], places, NEVER)
            further, _ = extend_cache(config, frozen, Batch(tokens[:, :-1], places), cache, hooks)
            states = jnp.concatenate([states, further], axis=1)
        logprobs, best = decoder.token_scores(frozen, states, tokens)
        return jnp.sum(logprobs * real, axis=1), jnp.all((logprobs >= best) | ~real, axis=1)

    return jax.lax.map(one, (tokens, lengths))
