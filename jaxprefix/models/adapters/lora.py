"""lora: a low-rank term added to chosen projections, W x + (alpha/r)·B A x (Hu et al., arXiv:2106.09685).

With `dora` (Liu et al., arXiv:2402.09353) a learnt magnitude m of each output replaces the norm of its row:
m · (W x + s·B A x) / ‖W + s·B A‖, where s = alpha/r and the norm has no gradient (section 4.3). A bias is added after
it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import isfinite, prod
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxprefix.errors import InputError
from jaxprefix.models.adapters.adapter import EncodeText, check_projections, check_size, of_rows
from jaxprefix.models.adapters.sum import Summand
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.hooks import Frozen, Hooks, LowRank, Params
from jaxprefix.models.parameters import BY_NAME, PROJECTIONS, input_dims, scale_of

TARGETS = tuple(name.removesuffix("_proj") for name in PROJECTIONS)
SMALLEST = 1e-15  # of a norm: a row of zeros has a magnitude of zero, and stays zero


@dataclass(frozen=True)
class LoRA(Summand):
    """Parameters: `{"q_proj": {"a": [L, R, in...], "b": [L, out..., R]}, ...}`; A Kaiming-uniform(√5), B zero.

    DoRA also has `"magnitude": [L, out...]`, the norms of W at the start. For inference the factors
    `"gain": [L, out...]`, magnitude / norm, replace it.

    Learning rate: 1e-3, of the study's grid {3e-3, 1e-3, 3e-4} (arXiv:2510.24619), checked on SmolLM2
    (docs/real.md). DoRA has the same: after 20 steps of 4 rows of TyDiQA on SmolLM2, where the base has a held-out loss
    of 2.456, it has 1.880 at 3e-4, 1.245 at 1e-3 (LoRA: 1.258) and 1.166 at 3e-3 (LoRA: 1.172). After 90 steps of
    babel-qa on the embedded model it has 0.091 (LoRA: 0.095).
    """

    method: ClassVar[str] = "lora"
    learning_rate: ClassVar[float] = 1e-3
    embedded_factor: ClassVar[float] = 3
    no_decay: ClassVar[frozenset[str]] = frozenset({"magnitude"})
    starts_as_base = True
    prompt_length = 0

    rank: int = 4
    alpha: float = 8.0  # the term is scaled by alpha / rank
    targets: str = "q,k,v"  # some of q, k, v, o, gate, up, down
    dropout: float = 0.0  # dropout rate of the term's inputs in training
    dora: bool = False  # learn the magnitude of each output apart from its direction

    def __post_init__(self) -> None:
        check_size(self.method, "rank", self.rank)
        if not isfinite(self.alpha):
            raise InputError(f"lora alpha is {self.alpha}; expected a finite number")
        if not 0 <= self.dropout < 1:
            raise InputError(f"lora dropout is {self.dropout}; expected at least 0 and below 1")
        if self.dora and self.dropout:
            raise InputError(
                f"lora dropout is {self.dropout} with dora, where PEFT also drops inputs of the frozen weights; "
                "expected 0"
            )
        names = self.targets.split(",")
        unknown = [name for name in names if name not in TARGETS]
        if unknown or len(set(names)) < len(names):
            raise InputError(f"lora targets are {self.targets!r:.100}; expected some of {','.join(TARGETS)}, each once")

    @property
    def projections(self) -> list[str]:
        return [f"{name}_proj" for name in self.targets.split(",")]

    def init(self, key: Array, config: DecoderConfig, frozen: Frozen, encode: EncodeText | None = None) -> Params:
        check_projections(self.method, self.projections, frozen)
        params = {}
        for name, part in zip(self.projections, jax.random.split(key, len(self.projections)), strict=True):
            layers, *dims = frozen["layers"][name].shape
            cut = len(dims) - input_dims(name)
            outputs, inputs = dims[:cut], dims[cut:]
            bound = prod(inputs) ** -0.5
            a = jax.random.uniform(part, (layers, self.rank, *inputs), minval=-bound, maxval=bound)
            params[name] = {"a": a, "b": jnp.zeros((layers, *outputs, self.rank))}
            if self.dora:
                params[name]["magnitude"] = norms(frozen, name, **params[name])
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
        gains = partial(self._with_gain, frozen=frozen)
        params = of_rows(gains(params) if adapter_ids is None else jax.vmap(gains)(params), adapter_ids)
        delta = {}
        for index, name in enumerate(self.projections):
            part = params[name]
            keys = None
            if self.dropout and key is not None:
                keys = jax.random.split(jax.random.fold_in(key, index), part["a"].shape[0])
            delta[name] = LowRank(part["a"], part["b"], self.alpha / self.rank, self.dropout, keys, part.get("gain"))
        return frozen, Hooks(delta=delta)

    def _with_gain(self, params: Params, frozen: Frozen) -> Params:
        """DoRA's parameters with the factor of each output; those that have it already, and LoRA's, are unchanged."""

        def gain(name: str, part: Params) -> Params:
            norm = norms(frozen, name, part["a"], self.alpha / self.rank * part["b"])
            return {"a": part["a"], "b": part["b"], "gain": part["magnitude"] / norm}

        return {name: gain(name, part) if "magnitude" in part else part for name, part in params.items()}

    def inference_form(self, config: DecoderConfig, params: Params, frozen: Frozen) -> tuple["LoRA", Params]:
        """Without dropout, with the scale in B, gains in place of magnitudes, and the targets in order.

        Runs of other alphas can so share a batch, and no call computes norms.
        """
        scale = self.alpha / self.rank
        params = {name: part | {"b": scale * part["b"]} for name, part in self._with_gain(params, frozen).items()}
        targets = ",".join(name for name in TARGETS if name in self.targets.split(","))
        return replace(self, alpha=float(self.rank), targets=targets, dropout=0.0), params

    def merged_bias(self, bias: Float[Array, "L O"], params: Params) -> Float[Array, "L O"]:
        """The bias as it is."""
        return bias

    def merged(self, weight: Float[Array, "L O I"], params: Params) -> Float[Array, "L O I"]:
        """W + (alpha/r)·B A, with the parameters of this projection; its rows have DoRA's magnitudes as norms."""
        terms = jax.vmap(lambda a, b: self.alpha / self.rank * jnp.tensordot(b, a, 1))(params["a"], params["b"])
        changed = weight + terms.reshape(weight.shape)
        if not self.dora:
            return changed
        norm = jnp.maximum(jnp.linalg.norm(changed, axis=2, keepdims=True), SMALLEST)
        return changed * (params["magnitude"].reshape(norm.shape) / norm)


def norms(frozen: Frozen, name: str, a: Float[Array, "L R ..."], b: Float[Array, "L ... R"]) -> Float[Array, "L ..."]:
    """‖W + B A‖ of each output of a projection, without a gradient. One layer at a time is in float32."""
    layers: Mapping[str, Any] = frozen["layers"]
    weight, scale = layers[name], layers.get(scale_of(BY_NAME[name]).name)
    args = jax.lax.stop_gradient((weight, scale, a, b))
    if not isinstance(weight, tuple):
        return jax.lax.map(lambda layer: _norm(*layer), args)
    weights, scales, a, b = args
    return jnp.stack([_norm(*layer) for layer in zip(weights, scales or [None] * len(weights), a, b, strict=True)])


@jax.jit
def _norm(weight: Array, scale: Array | None, a: Array, b: Array) -> Array:
    """‖W‖² + 2·rowsum(B ∘ W Aᵀ) + rowsum(B (A Aᵀ) ∘ B) in float32: W + B A does not exist. `scale` is int8's."""
    width = prod(a.shape[1:])
    weight, a = weight.reshape(*b.shape[:-1], width).astype(jnp.float32), a.reshape(-1, width)
    product = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    squares, cross = jnp.sum(weight * weight, axis=-1), product(weight, a.T)
    if scale is not None:
        squares, cross = squares * scale**2, cross * scale[..., None]
    squares = squares + jnp.sum(b * (2 * cross + product(b, product(a, a.T))), axis=-1)
    return jnp.sqrt(jnp.maximum(squares, SMALLEST**2))
