"""full: full fine-tuning, a baseline that forgets. It also pretrained the embedded model."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxprefix.errors import InputError
from jaxprefix.models.adapters.adapter import EncodeText
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.hooks import Frozen, Hooks, Params
from jaxprefix.models.layers import is_unstacked, unstack
from jaxprefix.models.parameters import VECTORS


@dataclass(frozen=True)
class FullFineTuning:
    """The parameters are the weights themselves, in float32. The decoder computes with them in the dtype of the base.

    Learning rate: 1e-5, usual for full fine-tuning of 7B models (Stanford Alpaca: 2e-5, the baseline of LLaMA-Adapter:
    1e-5).
    """

    method: ClassVar[str] = "full"
    learning_rate: ClassVar[float] = 1e-5
    embedded_factor: ClassVar[float] = 10
    no_decay: ClassVar[frozenset[str]] = VECTORS
    starts_as_base = True
    prompt_length = 0

    def init(self, key: Array, config: DecoderConfig, frozen: Frozen, encode: EncodeText | None = None) -> Params:
        # Always a copy, because the step donates these buffers and the base must survive.
        return jax.tree.map(lambda weight: jnp.array(weight, jnp.float32, copy=True), frozen)

    def bind(
        self,
        config: DecoderConfig,
        params: Params,
        frozen: Frozen,
        key: Array | None = None,
        adapter_ids: Array | None = None,
    ) -> tuple[Frozen, Hooks]:
        if adapter_ids is not None:
            raise InputError("all weights cannot differ between the rows of a batch; use such runs separately")
        params = unstack(params) if is_unstacked(frozen["layers"]) else params
        return jax.tree.map(lambda learnt, base: learnt.astype(base.dtype), params, frozen), Hooks()
