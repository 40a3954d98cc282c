"""Log-likelihoods of choices after a shared prompt, which is computed once."""

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
    tokens: Int[Array, "B T"],
    lengths: Int[Array, "B C"],
    shared: SharedPrompt | None = None,
) -> tuple[Float[Array, "B C"], Bool[Array, "B C"]]:
    """For each choice after the prompt of its row: Σ log p of its tokens in float32, and whether it is the greedy
    answer.

    `tokens` has the choices of a row, one after the other, and `lengths` how many of them each has. No choice attends
    to another. With T = C each has one token, and nothing is computed beyond the prompts.
    `batch` is what follows the shared prompt, if there is one.
    """
    state, position, cache = prefill(config, frozen, batch, hooks, 0, shared)
    slots, ends = jnp.arange(tokens.shape[1]), jnp.cumsum(lengths, axis=1)
    choice = jnp.sum(slots[:, None] >= ends[:, None], axis=2)  # of each token; C in padding
    start = jnp.take_along_axis(ends - lengths, jnp.minimum(choice, lengths.shape[1] - 1), axis=1)
    states = jnp.broadcast_to(state[:, None], (*tokens.shape, state.shape[1]))
    if tokens.shape[1] > lengths.shape[1]:
        places = jnp.where(choice < lengths.shape[1], position[:, None] + slots - start, NEVER)
        further, _ = extend_cache(config, frozen, Batch(tokens, places, choice), cache, unstack_hooks(hooks))
        is_first = (slots == start)[..., None]
        states = jnp.where(is_first, states, jnp.roll(further, 1, axis=1))  # the state before predicts a token
    logprobs, best = decoder.token_scores(frozen, states, tokens)
    own = choice[..., None] == jnp.arange(lengths.shape[1])
    sums = jnp.sum(jnp.where(own, logprobs[..., None], 0), axis=1)
    return sums, jnp.all((logprobs >= best)[..., None] | ~own, axis=1)
