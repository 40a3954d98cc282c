"""The next token: greedy, or sampled with temperature, top-k and top-p (nucleus, arXiv:1904.09751), in that order.

A sample depends on the seed of the row and on its number of tokens, never on the rest of the batch.
"""

from dataclasses import dataclass, field
from numbers import Integral, Real

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt32

from jaxprefix.errors import InputError


@dataclass(frozen=True)
class Sampling:
    """How tokens are sampled. Temperature 0 is greedy."""

    temperature: float = 0.0
    top_k: int = 0  # sample from this many of the most likely tokens; 0 is all
    top_p: float = 1.0  # sample from the most likely tokens that have this probability together
    seed: int = field(default=0, compare=False)  # the seed of the rows' seeds; compiled programs do not depend on it

    def __post_init__(self) -> None:
        for name, kind in (("temperature", Real), ("top_k", Integral), ("top_p", Real), ("seed", Integral)):
            if not isinstance(value := getattr(self, name), kind):
                expected = "a whole number" if kind is Integral else "a number"
                raise InputError(f"{name.replace('_', '-')} is {value!r}; expected {expected}")
        if not 0 <= self.temperature < float("inf"):
            raise InputError(f"temperature is {self.temperature}; expected 0 (greedy) or more")
        if self.top_k < 0:
            raise InputError(f"top-k is {self.top_k}; expected 0 (all tokens) or more")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top-p is {self.top_p}; expected a share above 0, at most 1")
        if not self.temperature and (self.top_k or self.top_p < 1):
            given = f"top-k is {self.top_k} and top-p {self.top_p} at temperature 0, which is greedy"
            raise InputError(f"{given}; give a temperature above 0, or leave them out")

    def __str__(self) -> str:
        if not self.temperature:
            return "greedy"
        return f"temperature {self.temperature:g}, top-k {self.top_k}, top-p {self.top_p:g}, seed {self.seed}"


GREEDY = Sampling()


def sample(
    logits: Float[Array, "B V"], sampling: Sampling, seeds: UInt32[Array, " B"], counts: Int[Array, " B"]
) -> Int[Array, " B"]:
    """The next token of each row; `counts` is how many it has."""
    if not sampling.temperature:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    keys = jax.vmap(lambda seed, count: jax.random.fold_in(jax.random.key(seed), count))(seeds, counts)
    noise = jax.vmap(lambda key: jax.random.gumbel(key, logits.shape[1:]))(keys)
    return jnp.argmax(top_logits(logits / sampling.temperature, sampling) + noise, axis=-1).astype(jnp.int32)


def top_logits(logits: Float[Array, "B V"], sampling: Sampling) -> Float[Array, "B V"]:
    """The logits, with -inf for tokens that cannot be sampled."""
    size = logits.shape[-1]
    if 0 < sampling.top_k < size:
        least = jax.lax.top_k(logits, sampling.top_k)[0][:, -1:]
        logits = jnp.where(logits < least, -jnp.inf, logits)
    if sampling.top_p == 1:
        return logits
    # A token stays if more likely ones have less than top-p together, so the first one always stays.
    order = jnp.argsort(-logits, axis=-1)
    shares = jax.nn.softmax(jnp.take_along_axis(logits, order, axis=-1), axis=-1)
    stays = jnp.cumsum(shares, axis=-1) - shares < sampling.top_p
    return jnp.where(jnp.take_along_axis(stays, jnp.argsort(order, axis=-1), axis=-1), logits, -jnp.inf)
