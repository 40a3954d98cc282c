"""full: full fine-tuning, a baseline that forgets. It also pretrained the embedded model.

Two penalties keep the weights near the base's, θ0:

    l2-sp: λ/2 Σ (θ - θ0)²  (Li et al., arXiv:1802.01483)
    ewc:   λ/2 Σ F (θ - θ0)²  (Kirkpatrick et al., arXiv:1612.00796), F the diagonal of the Fisher information
"""

from dataclasses import dataclass
from math import inf
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxprefix.errors import InputError
from jaxprefix.models.adapters.adapter import IMPORTANCE, EncodeText
from jaxprefix.models.adapters.sum import Summand
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.hooks import Frozen, Hooks, Params
from jaxprefix.models.layers import is_unstacked, unstack
from jaxprefix.models.parameters import VECTORS


@dataclass(frozen=True)
class FullFineTuning(Summand):
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

    regularise: Literal["l2-sp", "ewc"] | None = None  # the penalty on changes of the weights; None is none
    strength: float | None = None  # λ; 0 is the same as no penalty
    # For ewc: the texts whose skill is kept, rows {"text"[, "language"]}, or the fisher.safetensors of another run.
    fisher_text: str | None = None

    def __post_init__(self) -> None:
        if self.regularise not in (None, "l2-sp", "ewc"):
            raise InputError(f"full regularise is {self.regularise!r:.100}; expected l2-sp or ewc")
        if self.regularise is not None and self.strength is None:
            raise InputError(f"full regularise {self.regularise} needs a strength; give --full.strength, 0 or more")
        if self.regularise is None and self.strength is not None:
            raise InputError(f"full strength {self.strength} is of a penalty; give --full.regularise l2-sp or ewc")
        if self.strength is not None and not 0 <= self.strength < inf:
            raise InputError(f"full strength is {self.strength}; expected 0 or more")
        if (self.regularise == "ewc") != (self.fisher_text is not None):
            raise InputError("full regularise ewc and fisher-text FILE belong together; give both, or neither")

    @property
    def has_penalty(self) -> bool:
        return bool(self.strength)

    @property
    def needs_importance(self) -> bool:
        return self.has_penalty and self.regularise == "ewc"

    def penalty(self, params: Params, frozen: Frozen) -> Array:
        """λ/2 Σ F (θ - θ0)² in float32. F is 1, or `frozen[IMPORTANCE]`, a tree of the same structure."""

        def squares(learnt: Array, start: Array, importance: Array | float = 1.0) -> Array:
            return jnp.sum(importance * (learnt - start.astype(jnp.float32)) ** 2)

        trees = [_weights(frozen)] + ([frozen[IMPORTANCE]] if self.needs_importance else [])
        return (self.strength or 0.0) / 2 * jax.tree.reduce(jnp.add, jax.tree.map(squares, params, *trees))

    def init(self, key: Array, config: DecoderConfig, frozen: Frozen, encode: EncodeText | None = None) -> Params:
        # Always a copy, because the step donates these buffers and the base must survive.
        return jax.tree.map(lambda weight: jnp.array(weight, jnp.float32, copy=True), _weights(frozen))

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
        return jax.tree.map(lambda learnt, base: learnt.astype(base.dtype), params, _weights(frozen)), Hooks()


def _weights(frozen: Frozen) -> Frozen:
    """The weights alone."""
    return {name: leaf for name, leaf in frozen.items() if name != IMPORTANCE}
