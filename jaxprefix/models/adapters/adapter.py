"""The protocol that every method keeps: two pure functions on a frozen dataclass that holds no arrays."""

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Array, Int

from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.hooks import Hooks

Params = Any  # the adapter's own small tree: the only thing that is differentiated
Frozen = Any  # the base's tree of weights (decoder.py)


@runtime_checkable
class Adapter(Protocol):
    """A method of adaptation, such as prefix tuning; it prints as its own configuration.

    Its class also carries `method`, the name on the command line, and `learning_rate`, the default.
    """

    def init(self, key: Array, config: DecoderConfig, frozen: Frozen, text: Any = None) -> Params:
        """Fresh parameters (float32). `text` is a prompt that the caller has run through the base."""
        ...

    def bind(
        self, params: Params, frozen: Frozen, key: Array | None = None, rows: Int[Array, " B"] | None = None
    ) -> tuple[Frozen, Hooks]:
        """The weights and hooks of one call; `key` turns dropout on, `rows` picks one of several adapters a row."""
        ...
