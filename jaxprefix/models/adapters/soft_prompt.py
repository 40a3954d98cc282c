"""soft-prompt: learnt vectors before the embeddings, at positions 0..P-1 (Lester et al., arXiv:2104.08691)."""

from dataclasses import dataclass, replace
from math import inf
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxprefix.errors import InputError
from jaxprefix.models.adapters.adapter import EncodeText, check_size, check_start, encoded
from jaxprefix.models.adapters.sum import Summand
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.hooks import Frozen, Hooks, Params


@dataclass(frozen=True)
class SoftPrompt(Summand):
    """Parameters: `{"prompt": [P, D]}`, which are like rows of the embedding table: Gemma scales both.

    Learning rate: 1e-2. Soft prompts need higher rates than other methods: their authors train at 0.3 (with Adafactor),
    and on the embedded model 0.1 has a held-out loss of 0.57 where 0.03 has 0.65. The authors also found a start from
    the vocabulary better than a random one.
    """

    method: ClassVar[str] = "soft-prompt"
    learning_rate: ClassVar[float] = 1e-2
    embedded_factor: ClassVar[float] = 20
    no_decay: ClassVar[frozenset[str]] = frozenset({"prompt"})
    starts_as_base = False

    length: int = 10  # vectors
    start: str = "vocabulary"  # the embeddings of sampled tokens, of text:SOME WORDS, or random
    std: float = 0.02  # of the random start, about that of embeddings

    def __post_init__(self) -> None:
        check_size(self.method, "length", self.length)
        if not 0 <= self.std < inf:
            raise InputError(f"soft-prompt std is {self.std}; expected 0 or more")
        check_start(self.method, self.start)

    @property
    def prompt_length(self) -> int:
        return self.length

    def inference_form(self, config: DecoderConfig, params: Params, frozen: Frozen) -> tuple["SoftPrompt", Params]:
        """Without its start."""
        return replace(self, start="random", std=0.0), params

    def init(
        self, key: Array, config: DecoderConfig, frozen: Frozen, encode: EncodeText | None = None
    ) -> dict[str, Array]:
        if self.start == "random":
            return {"prompt": self.std * jax.random.normal(key, (self.length, config.hidden_size))}
        prompt = encoded(self.method, self.start, self.length, encode)
        return {"prompt": prompt.embeddings.astype(jnp.float32)}

    def bind(
        self,
        config: DecoderConfig,
        params: Params,
        frozen: Frozen,
        key: Array | None = None,
        adapter_ids: Array | None = None,
    ) -> tuple[Frozen, Hooks]:
        """With `adapter_ids`, params have a leading dimension of adapters, and row b uses adapter `adapter_ids[b]`."""
        return frozen, Hooks(prompt=params["prompt"] if adapter_ids is None else params["prompt"][adapter_ids])
