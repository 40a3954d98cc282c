"""lora: a low-rank term added to chosen projections, W x + (alpha/r)·B A x (Hu et al., arXiv:2106.09685)."""

from dataclasses import dataclass, replace
from math import isfinite, prod
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxprefix.errors import InputError
from jaxprefix.models.adapters.adapter import EncodeText, check_size, of_rows
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.hooks import Frozen, Hooks, LowRank, Params
from jaxprefix.models.parameters import PROJECTIONS, input_dims

TARGETS = tuple(name.removesuffix("_proj") for name in PROJECTIONS)


@dataclass(frozen=True)
class LoRA:
    """Parameters: `{"q_proj": {"a": [L, R, in...], "b": [L, out..., R]}, ...}`; A Kaiming-uniform(√5), B zero.

    Learning rate: 1e-3, of the study's grid {3e-3, 1e-3, 3e-4} (arXiv:2510.24619), checked on SmolLM2
    (docs/real.md).
    """

    method: ClassVar[str] = "lora"
    learning_rate: ClassVar[float] = 1e-3
    embedded_factor: ClassVar[float] = 3
    no_decay: ClassVar[frozenset[str]] = frozenset()
    starts_as_base = True
    prompt_length = 0

    rank: int = 4
    alpha: float = 8.0  # the term is scaled by alpha / rank
    targets: str = "q,k,v"  # some of q, k, v, o, gate, up, down
    dropout: float = 0.0  # dropout rate of the term's inputs in training

    def __post_init__(self) -> None:
        check_size(self.method, "rank", self.rank)
        if not isfinite(self.alpha):
            raise InputError(f"lora alpha is {self.alpha}; expected a finite number")
        if not 0 <= self.dropout < 1:
            raise InputError(f"lora dropout is {self.dropout}; expected at least 0 and below 1")
        names = self.targets.split(",")
        unknown = [name for name in names if name not in TARGETS]
        if unknown or len(set(names)) < len(names):
            raise InputError(f"lora targets are {self.targets!r:.100}; expected some of {','.join(TARGETS)}, each once")

    @property
    def projections(self) -> list[str]:
        return [f"{name}_proj" for name in self.targets.split(",")]

    def init(self, key: Array, config: DecoderConfig, frozen: Frozen, encode: EncodeText | None = None) -> Params:
        params = {}
        for name, part in zip(self.projections, jax.random.split(key, len(self.projections)), strict=True):
            layers, *dims = frozen["layers"][name].shape
            cut = len(dims) - input_dims(name)
            outputs, inputs = dims[:cut], dims[cut:]
            bound = prod(inputs) ** -0.5
            a = jax.random.uniform(part, (layers, self.rank, *inputs), minval=-bound, maxval=bound)
            params[name] = {"a": a, "b": jnp.zeros((layers, *outputs, self.rank))}
        return params

    def bind(
        self,
        config: DecoderConfig,
        params: Params,
        frozen: Frozen,
        key: Array | None = None,
        adapter_ids: Array | None = None,
    ) -> tuple[Frozen, Hooks]:
        """With `adapter_ids`, params have a leading dimension of adapters, and row b uses adapter `adapter_ids[b]`."""
        params, delta = of_rows(params, adapter_ids), {}
        for index, name in enumerate(self.projections):
            part = params[name]
            keys = None
            if self.dropout and key is not None:
                keys = jax.random.split(jax.random.fold_in(key, index), part["a"].shape[0])
            delta[name] = LowRank(part["a"], part["b"], self.alpha / self.rank, self.dropout, keys)
        return frozen, Hooks(delta=delta)

    def inference_form(self, params: Params, layers: int) -> tuple["LoRA", Params]:
        """Without dropout, with the scale in B and the targets in order, so that runs of other alphas share a batch."""
        scale = self.alpha / self.rank
        params = {name: part | {"b": scale * part["b"]} for name, part in params.items()}
        targets = ",".join(name for name in TARGETS if name in self.targets.split(","))
        return replace(self, alpha=float(self.rank), targets=targets, dropout=0.0), params

    def merged_bias(self, bias: Float[Array, "L O"], params: Params) -> Float[Array, "L O"]:
        """The bias as it is."""
        return bias

    def merged(self, weight: Float[Array, "L O I"], params: Params) -> Float[Array, "L O I"]:
        """W + (alpha/r)·B A, with the parameters of this projection."""
        terms = jax.vmap(lambda a, b: self.alpha / self.rank * jnp.tensordot(b, a, 1))(params["a"], params["b"])
        return weight + terms.reshape(weight.shape)
