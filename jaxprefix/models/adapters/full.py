"""full: every weight learns; the baseline that forgets, and what pretrains the embedded default."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxprefix.errors import InputError
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.hooks import Hooks


@dataclass(frozen=True)
class FullFineTuning:
    """The adapter whose tree is the weights themselves, kept in float32; the decoder gets them in the base's dtype.

    Learning rate: 1e-5, usual for full fine-tuning of 7B models (for example Stanford Alpaca: 2e-5, LLaMA-Adapter's
    comparison: 1e-5).
    """

    method: ClassVar[str] = "full"
    learning_rate: ClassVar[float] = 1e-5
    starts_as_base = True

    def init(self, key: Array, config: DecoderConfig, frozen: Any, text: Any = None) -> Any:
        # A copy even where the base is float32: the step donates these buffers, and the base must survive it.
        return jax.tree.map(lambda weight: jnp.array(weight, jnp.float32, copy=True), frozen)

    def bind(self, params: Any, frozen: Any, key: Array | None = None, rows: Array | None = None) -> tuple[Any, Hooks]:
        if rows is not None:
            raise InputError("rows of a batch cannot have different weights; method full has one adapter only")
        return jax.tree.map(lambda learnt, base: learnt.astype(base.dtype), params, frozen), Hooks()
