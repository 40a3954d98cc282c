"""prefix: learnt keys and values in front of every adapted layer's own (Li and Liang, arXiv:2101.00190).

    out = softmax(q [Pk; K]ᵀ/√H) [Pv; V]

With `source` "hidden" a slot is one vector of the model's size and Pk = Wk·E, Pv = Wv·E through the frozen projections,
without rotation (the study's form, arXiv:2510.24619); with "kv" keys and values are learnt directly.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxprefix.models.config import DecoderConfig, layer_range
from jaxprefix.models.hooks import ALWAYS, NEVER, Hooks, Prefix


@dataclass(frozen=True)
class PrefixTuning:
    """Parameters: `{"hidden": [n, P, D]}` or `{"keys", "values": [n, P, K, H]}` for the n adapted layers.

    Learning rate: 3e-3, the largest of the study's grid {3e-3, 1e-3, 3e-4}; published runs at 9e-3 ended in NaN.
    """

    method: ClassVar[str] = "prefix"
    learning_rate: ClassVar[float] = 3e-3

    length: int = 10  # slots a layer
    layers: str = "top"  # all, top:30, 2:32, or top: all but the lowest two
    source: Literal["hidden", "kv"] = "hidden"  # what is learnt: vectors to project, or keys and values
    std: float = 0.5  # of the random start: about the size of the normed inputs that the projections are used to

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ValueError(f"prefix length is {self.length}; expected at least 1")
        if self.source not in ("hidden", "kv"):
            raise ValueError(f"prefix source is {self.source!r}; expected hidden or kv")
        if self.std < 0:
            raise ValueError(f"prefix std is {self.std}; expected 0 or more")

    def init(self, key: Array, config: DecoderConfig, frozen: Any, text: Any = None) -> dict[str, Array]:
        first, last = layer_range(self.layers, config.layers)
        shape = (last - first, self.length)
        if self.source == "hidden":
            return {"hidden": self.std * jax.random.normal(key, (*shape, config.hidden_size))}
        keys, values = self.std * jax.random.normal(key, (2, *shape, config.kv_heads, config.head_size))
        return {"keys": keys, "values": values}

    def bind(
        self, params: dict[str, Array], frozen: Any, key: Array | None = None, rows: Array | None = None
    ) -> tuple[Any, Hooks]:
        """With `rows`, params carry a leading dimension of adapters, and row b of the batch uses adapter `rows[b]`."""
        key_weight, value_weight = frozen["layers"]["k_proj"], frozen["layers"]["v_proj"]
        layers = key_weight.shape[0]
        first, last = layer_range(self.layers, layers)

        def stacked(leaf: Array) -> Array:
            """All L layers (zeros where there is no prefix), the adapters behind them: [L, *A, P, ...]."""
            leaf = leaf if rows is None else jnp.moveaxis(leaf, 0, 1)
            return jnp.pad(leaf, [(first, layers - last)] + [(0, 0)] * (leaf.ndim - 1))

        if self.source == "hidden":
            vectors = stacked(params["hidden"])
            keys, values = _project(vectors, key_weight), _project(vectors, value_weight)
        else:
            keys, values = stacked(params["keys"]), stacked(params["values"])
        if rows is not None:
            keys, values = keys[:, rows], values[:, rows]
        adapted = (jnp.arange(layers) >= first) & (jnp.arange(layers) < last)
        positions = jnp.broadcast_to(jnp.where(adapted, ALWAYS, NEVER)[:, None], (layers, self.length))
        return frozen, Hooks(first=first, prefix=Prefix(keys, values, positions))


def _project(vectors: Float[Array, "L *A P D"], weight: Float[Array, "L K H D"]) -> Float[Array, "L *A P K H"]:
    """One product a layer, for the whole stack at once and outside the loop over layers."""
    return jnp.einsum("l...pd,lkhd->l...pkh", vectors.astype(weight.dtype), weight)
