"""none: the frozen base, the baseline of every comparison."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Array

from jaxprefix.models.adapters.adapter import EncodeText
from jaxprefix.models.adapters.sum import Summand
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.hooks import Frozen, Hooks, Params


@dataclass(frozen=True)
class NoAdapter(Summand):
    """No parameters and no hooks."""

    method: ClassVar[str] = "none"
    learning_rate: ClassVar[float] = 0.0
    embedded_factor: ClassVar[float] = 1
    no_decay: ClassVar[frozenset[str]] = frozenset()
    starts_as_base = True
    prompt_length = 0

    def init(self, key: Array, config: DecoderConfig, frozen: Frozen, encode: EncodeText | None = None) -> Params:
        return {}

    def bind(
        self,
        config: DecoderConfig,
        params: Params,
        frozen: Frozen,
        key: Array | None = None,
        adapter_ids: Array | None = None,
    ) -> tuple[Frozen, Hooks]:
        return frozen, Hooks()
