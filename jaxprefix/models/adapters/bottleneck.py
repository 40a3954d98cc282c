"""bottleneck: a small residual block x + up(silu(down(x))) on the outputs of a layer's blocks (arXiv:1902.00751).

It follows the feed-forward block alone (Pfeiffer et al., arXiv:2005.00052) or attention as well (Houlsby et al.).
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxprefix.errors import InputError
from jaxprefix.models.adapters.adapter import EncodeText, check_size, of_rows
from jaxprefix.models.adapters.sum import Summand
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.hooks import Bottleneck, Frozen, Hooks, Params


@dataclass(frozen=True)
class BottleneckAdapter(Summand):
    """Parameters: `{SEAM: {"down": [L, R, D], "up": [L, D, R]}}`; down Kaiming-uniform(√5), up zero.

    SEAM is after_feed_forward, and with the placement of Houlsby also after_attention.

    Learning rate: 1e-3, of the study's grid {3e-3, 1e-3, 3e-4} (arXiv:2510.24619), checked on SmolLM2
    (docs/real.md).
    """

    method: ClassVar[str] = "bottleneck"
    learning_rate: ClassVar[float] = 1e-3
    embedded_factor: ClassVar[float] = 3
    no_decay: ClassVar[frozenset[str]] = frozenset()
    starts_as_base = True
    prompt_length = 0

    size: int = 64  # R
    placement: Literal["pfeiffer", "houlsby"] = "pfeiffer"  # after the feed-forward, or after both blocks

    def __post_init__(self) -> None:
        check_size(self.method, "size", self.size)
        if self.placement not in ("pfeiffer", "houlsby"):
            raise InputError(f"bottleneck placement is {self.placement!r:.100}; expected pfeiffer or houlsby")

    @property
    def seams(self) -> tuple[str, ...]:
        return ("after_feed_forward",) if self.placement == "pfeiffer" else ("after_attention", "after_feed_forward")

    def init(self, key: Array, config: DecoderConfig, frozen: Frozen, encode: EncodeText | None = None) -> Params:
        layers, width = config.layers, config.hidden_size
        bound, params = width**-0.5, {}
        for seam, part in zip(self.seams, jax.random.split(key, len(self.seams)), strict=True):
            down = jax.random.uniform(part, (layers, self.size, width), minval=-bound, maxval=bound)
            params[seam] = {"down": down, "up": jnp.zeros((layers, width, self.size))}
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
        blocks = {seam: Bottleneck(**part) for seam, part in of_rows(params, adapter_ids).items()}
        return frozen, Hooks(
            after_attention=blocks.get("after_attention"), after_feed_forward=blocks["after_feed_forward"]
        )
