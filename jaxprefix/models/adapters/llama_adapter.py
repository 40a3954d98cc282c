"""llama-adapter: a prefix with a softmax of its own behind a gate that starts closed (Zhang et al., arXiv:2303.16199).

    out = softmax(q Kᵀ/√H) V + tanh(g) · softmax(q Pkᵀ/√H) Pv

A virtual token is a vector E of the model's size. Pk = Wk·E and Pv = Wv·E, by the frozen projections, without rotation.
"""

from dataclasses import dataclass, replace
from math import inf
from typing import ClassVar, Literal

import jax.numpy as jnp
from jaxtyping import Array

from jaxprefix.errors import InputError
from jaxprefix.models.adapters import slots
from jaxprefix.models.adapters.adapter import EncodeText, check_size, check_start, encoded
from jaxprefix.models.adapters.sum import Summand
from jaxprefix.models.config import DecoderConfig, layer_range
from jaxprefix.models.hooks import Frozen, Gated, Hooks, Params


@dataclass(frozen=True)
class LlamaAdapter(Summand):
    """Parameters: `{"hidden": [n, P, D], "gate": [n, N] or [n]}` for the n adapted layers; the gate starts at zero.

    Learning rate: 3e-3, the largest of the study's grid {3e-3, 1e-3, 3e-4} (arXiv:2510.24619); the authors' own code
    uses 9e-3 with batches of 64. No start changes the base, because the gate is closed. After 50 steps of 8 rows of
    TyDiQA on SmolLM2-135M-Instruct, a random start with std 0.5 has a held-out loss of 1.178, a start from the
    vocabulary 1.218, and LoRA 1.161.
    """

    method: ClassVar[str] = "llama-adapter"
    learning_rate: ClassVar[float] = 3e-3
    embedded_factor: ClassVar[float] = 20
    no_decay: ClassVar[frozenset[str]] = frozenset({"hidden", "gate"})
    starts_as_base = True
    prompt_length = 0

    length: int = 10  # virtual tokens per layer
    layers: str = "top"  # all, top:30, 2:32, or top: all but the lowest sixteenth
    gate: Literal["head", "layer"] = "head"  # one per query head, or one per layer
    activation: Literal["tanh", "identity"] = "tanh"  # of the gate; PEFT has none
    start: str = "random"  # random, vocabulary (sampled tokens) or text:SOME WORDS
    std: float = 0.5  # of the random start

    def __post_init__(self) -> None:
        check_size(self.method, "length", self.length)
        if self.gate not in ("head", "layer"):
            raise InputError(f"llama-adapter gate is {self.gate!r:.100}; expected head or layer")
        if self.activation not in ("tanh", "identity"):
            raise InputError(f"llama-adapter activation is {self.activation!r:.100}; expected tanh or identity")
        if not 0 <= self.std < inf:
            raise InputError(f"llama-adapter std is {self.std}; expected 0 or more")
        check_start(self.method, self.start)

    def init(
        self, key: Array, config: DecoderConfig, frozen: Frozen, encode: EncodeText | None = None
    ) -> dict[str, Array]:
        layers = slots.LayerRange.of(self.layers, config.layers)
        if self.start == "random":
            params = slots.random(key, config, layers, self.length, "hidden", self.std)
        else:
            text = encoded(self.method, self.start, self.length, encode)
            params = slots.of_text(config, frozen, text, layers, "hidden")
        count = layers.last - layers.first
        return params | {"gate": jnp.zeros((count, config.heads) if self.gate == "head" else count)}

    def inference_form(self, config: DecoderConfig, params: Params, frozen: Frozen) -> tuple["LlamaAdapter", Params]:
        """Without its start, and with its layers as a range."""
        first, last = layer_range(self.layers, config.layers)
        return replace(self, layers=f"{first}:{last}", start="random", std=0.0), params

    def bind(
        self,
        config: DecoderConfig,
        params: Params,
        frozen: Frozen,
        key: Array | None = None,
        adapter_ids: Array | None = None,
    ) -> tuple[Frozen, Hooks]:
        """With `adapter_ids`, params have a leading dimension of adapters, and row b uses adapter `adapter_ids[b]`."""
        layers = slots.LayerRange.of(self.layers, config.layers)
        keys, values = slots.keys_and_values(config, params, frozen, layers, adapter_ids)
        gate = params["gate"] if self.gate == "head" else jnp.repeat(params["gate"][..., None], config.heads, axis=-1)
        gate = layers.stacked(jnp.tanh(gate) if self.activation == "tanh" else gate, adapter_ids is not None)
        gate = gate if adapter_ids is None else gate[:, adapter_ids]
        return frozen, Hooks(first_adapted_layer=layers.first, gated=Gated(keys, values, gate))
