"""Generates the answers of one batch in one program, for tests and benchmarks; the engine refills finished rows."""

import jax.numpy as jnp
from jaxtyping import Array, Int, UInt32

from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.decode import PrefillBatch, decode_steps, init_state, insert
from jaxprefix.models.decoder import Batch, Frozen
from jaxprefix.models.hooks import Hooks
from jaxprefix.models.sampling import GREEDY, Sampling


def generate(
    config: DecoderConfig,
    frozen: Frozen,
    batch: Batch,
    hooks: Hooks,
    length: int,
    ends: tuple[int, ...],
    sampling: Sampling = GREEDY,
    seeds: UInt32[Array, " B"] | None = None,
) -> tuple[Int[Array, "B M"], Int[Array, " B"]]:
    """Continues every row by at most `length` tokens: (the tokens, the number of tokens before a row's end token).

    The loop stops when every row has one of `ends`.
    """
    rows = batch.tokens.shape[0]
    seeds = jnp.zeros(rows, jnp.uint32) if seeds is None else seeds
    prompts = PrefillBatch(batch, seeds, jnp.arange(rows))
    state = init_state(config, frozen, prompts, hooks, length)
    state = insert(config, frozen, state, prompts, hooks, ends, sampling)
    state = decode_steps(config, frozen, state, hooks, ends, sampling, min_active=0, steps=length)
    return state.tokens, state.counts
