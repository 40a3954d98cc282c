"""prefix: learnt keys and values before those of each adapted layer (Li and Liang, arXiv:2101.00190).

    joint: out = softmax(q [Pk; K]ᵀ/√H) [Pv; V]
    split: out = softmax(q Kᵀ/√H) V + softmax(q Pkᵀ/√H) Pv

With `source` "hidden" a virtual token is a vector E of the model's size, and Pk = Wk·E, Pv = Wv·E are computed by the
frozen projections, without rotation (the form of the study, arXiv:2510.24619). With "kv" keys and values are learnt
directly.
"""

from dataclasses import dataclass, replace
from math import inf
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxprefix.errors import InputError
from jaxprefix.models.adapters import slots
from jaxprefix.models.adapters.adapter import EncodeText, check_size, check_start, encoded
from jaxprefix.models.adapters.sum import Summand
from jaxprefix.models.config import DecoderConfig, layer_range
from jaxprefix.models.hooks import ALWAYS, NEVER, Frozen, Gated, Hooks, Params, Prefix

TANH_STD = 0.628  # the standard deviation of the tanh of a standard normal


@dataclass(frozen=True)
class PrefixTuning(Summand):
    """Parameters: `{"hidden": [n, P, D]}` or `{"keys", "values": [n, P, K, H]}` for the n adapted layers.

    With an `mlp` of M units (Li and Liang's reparameterisation) training computes them from
    `{"slots": [P, D], "inner": [D, M], "inner_bias": [M]}` and, for each name above, `{NAME_map: [n, M, ...],
    NAME_bias: [n, ...]}`. `fold` returns the plain form.

    Learning rate: 3e-3, the largest of the study's grid {3e-3, 1e-3, 3e-4}; published runs at 9e-3 ended in NaN.
    """

    method: ClassVar[str] = "prefix"
    learning_rate: ClassVar[float] = 3e-3
    embedded_factor: ClassVar[float] = 20
    no_decay: ClassVar[frozenset[str]] = frozenset(
        "hidden keys values slots inner_bias hidden_bias keys_bias values_bias".split()
    )
    starts_as_base = False
    prompt_length = 0

    length: int = 10  # virtual tokens per layer
    layers: str = "top"  # all, top:30, 2:32, or top: all but the lowest sixteenth
    source: Literal["hidden", "kv"] = "hidden"  # learn vectors to project, or keys and values
    softmax: Literal["joint", "split"] = "joint"  # one softmax with the text, or one for the prefix alone
    start: str | None = None  # vocabulary (sampled tokens), text:SOME WORDS or random; None: see chosen_start
    std: float = 0.02  # of the random start
    mlp: int = 0  # units of the MLP that computes the prefix in training; 0 is none

    def __post_init__(self) -> None:
        check_size(self.method, "length", self.length)
        if self.source not in ("hidden", "kv"):
            raise InputError(f"prefix source is {self.source!r:.100}; expected hidden or kv")
        if self.softmax not in ("joint", "split"):
            raise InputError(f"prefix softmax is {self.softmax!r:.100}; expected joint or split")
        if not 0 <= self.std < inf:
            raise InputError(f"prefix std is {self.std}; expected 0 or more")
        if self.mlp < 0:
            raise InputError(f"prefix mlp is {self.mlp}; expected 0 (none) or a number of units")
        check_size(self.method, "mlp", self.mlp or 1)
        check_start(self.method, self.chosen_start)
        if 0 < self.mlp < self.length and self.chosen_start != "random":
            raise InputError(
                f"prefix mlp {self.mlp} has fewer units than the {self.length} virtual tokens that start from "
                f"{self.chosen_start!r:.100}; expected at least {self.length}, or the start random"
            )

    @property
    def chosen_start(self) -> str:
        """`start`, or its default: "vocabulary" with a joint softmax, "random" with a split one.

        Measured on SmolLM2-135M-Instruct, as the held-out loss of a fresh adapter on TyDiQA, where the base has 2.202.
        Joint: 2.234 from the vocabulary, 2.409 at random with a std of 0 to 0.02 (a prefix takes a share of every
        softmax), 16 with a std of 0.5. Split: 5.895 from the vocabulary, whose values are added whole, 2.228 at random
        with 0.02.
        """
        if self.start is None:
            return "random" if self.softmax == "split" else "vocabulary"
        return self.start

    def init(
        self, key: Array, config: DecoderConfig, frozen: Frozen, encode: EncodeText | None = None
    ) -> dict[str, Array]:
        layers = slots.LayerRange.of(self.layers, config.layers)
        start, prompt = self.chosen_start, None
        if start != "random":
            text = encoded(self.method, start, self.length, encode)
            prompt = slots.of_text(config, frozen, text, layers, self.source)
        if self.mlp:
            return self._init_mlp(key, config, layers, prompt)
        return prompt or slots.random(key, config, layers, self.length, self.source, self.std)

    def _init_mlp(
        self, key: Array, config: DecoderConfig, layers: slots.LayerRange, prompt: dict[str, Array] | None
    ) -> dict[str, Array]:
        """An MLP that computes the prefix `prompt`, or without one a random prefix of the same std."""
        first, second, third = jax.random.split(key, 3)
        params = {
            "slots": jax.random.normal(first, (self.length, config.hidden_size)),
            "inner": config.hidden_size**-0.5 * jax.random.normal(second, (config.hidden_size, self.mlp)),
            "inner_bias": jnp.zeros(self.mlp),
        }
        if prompt:  # least-squares solution; it is exact, because there are at least as many units as virtual tokens
            inverse = jnp.linalg.pinv(self._units(params))
            outer = {name: jnp.einsum("mp,np...->nm...", inverse, leaf) for name, leaf in prompt.items()}
        else:
            std = self.std / (TANH_STD * self.mlp**0.5)
            outer = slots.random(third, config, layers, self.mlp, self.source, std)
        for name, maps in outer.items():
            params |= {f"{name}_map": maps, f"{name}_bias": jnp.zeros_like(maps[:, 0])}
        return params

    @staticmethod
    def _units(params: dict[str, Array]) -> Array:
        """The activations of the MLP, `[P, M]`."""
        return jnp.tanh(params["slots"] @ params["inner"] + params["inner_bias"])

    def fold(self, params: dict[str, Array]) -> tuple["PrefixTuning", dict[str, Array]]:
        """The method without its MLP, and the prefix that the MLP computes: the form for inference and export."""
        return replace(self, mlp=0), self._folded(params)

    def inference_form(self, config: DecoderConfig, params: Params, frozen: Frozen) -> tuple["PrefixTuning", Params]:
        """Without its MLP and its start, and with its layers as a range."""
        adapter, params = self.fold(params)
        first, last = layer_range(self.layers, config.layers)
        return replace(adapter, layers=f"{first}:{last}", start="random", std=0.0), params

    def _folded(self, params: dict[str, Array]) -> dict[str, Array]:
        if not self.mlp:
            return params
        inner = self._units(params)
        names = ("hidden",) if self.source == "hidden" else ("keys", "values")
        made = {name: jnp.einsum("pm,nm...->np...", inner, params[f"{name}_map"]) for name in names}
        return {name: leaf + params[f"{name}_bias"][:, None] for name, leaf in made.items()}

    def bind(
        self,
        config: DecoderConfig,
        params: Params,
        frozen: Frozen,
        key: Array | None = None,
        adapter_ids: Array | None = None,
    ) -> tuple[Frozen, Hooks]:
        """With `adapter_ids`, params have a leading dimension of adapters, and row b uses adapter `adapter_ids[b]`."""
        plain = self._folded(params) if adapter_ids is None else jax.vmap(self._folded)(params)
        layers = slots.LayerRange.of(self.layers, config.layers)
        keys, values = slots.keys_and_values(config, plain, frozen, layers, adapter_ids)
        if self.softmax == "split":
            gate = jnp.broadcast_to(layers.adapted[:, None].astype(jnp.float32), (config.layers, config.heads))
            return frozen, Hooks(first_adapted_layer=layers.first, gated=Gated(keys, values, gate))
        # A layer without a prefix masks it: zeros would take a share of the softmax.
        positions = jnp.where(layers.adapted, ALWAYS, NEVER)[:, None]
        positions = jnp.broadcast_to(positions, (config.layers, self.length))
        return frozen, Hooks(first_adapted_layer=layers.first, prefix=Prefix(keys, values, positions))
