"""Generation of one batch in one program, as tests and benchmarks want it; the engine refills rows that are done."""

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
    """Continues every row by at most `length` tokens: the tokens, and how many of a row's stand before its end token.

    The loop ends when every row has met one of `ends`.
    """
    rows = batch.tokens.shape[0]
    seeds = jnp.zeros(rows, jnp.uint32) if seeds is None else seeds
    prompts = PrefillBatch(batch, seeds, jnp.arange(rows))
    answers = init_state(config, frozen, prompts, hooks, length)
    answers = insert(config, frozen, answers, prompts, hooks, ends, sampling)
    answers = decode_steps(config, frozen, answers, hooks, ends, sampling, min_active=0, steps=length)
    return answers.tokens, answers.counts
