"""The protocol that every method keeps: two pure functions on a frozen dataclass that holds no arrays."""

from typing import Any, Protocol, runtime_checkable

from flax import struct
from jaxtyping import Array, Float, Int

from jaxprefix.errors import InputError
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.hooks import Hooks

Params = Any  # the adapter's own small tree: the only thing that is differentiated
Frozen = Any  # the base's tree of weights (decoder.py)


@struct.dataclass
class Text:
    """A prompt of P tokens that was run through the base: what slots may start from (adapter_init.py makes it)."""

    embeddings: Float[Array, "P D"]
    inputs: Float[Array, "L P D"]  # what each layer's attention reads: the stream behind its norm
    keys: Float[Array, "L P K H"]  # rotated as if the last token stood at position -1
    values: Float[Array, "L P K H"]


@runtime_checkable
class Adapter(Protocol):
    """A method of adaptation, such as prefix tuning; it prints as its own configuration.

    Its class also carries `method`, the name on the command line, and `learning_rate`, the default.
    """

    @property
    def starts_as_base(self) -> bool:
        """Whether fresh parameters leave the base's numbers as they are, bit for bit."""
        ...

    def init(self, key: Array, config: DecoderConfig, frozen: Frozen, text: Any = None) -> Params:
        """Fresh parameters (float32). `text` is a Text for a method that starts from one, or a sum's {method: Text}."""
        ...

    def bind(
        self, params: Params, frozen: Frozen, key: Array | None = None, rows: Int[Array, " B"] | None = None
    ) -> tuple[Frozen, Hooks]:
        """The weights and hooks of one call; `key` turns dropout on, `rows` picks one of several adapters a row."""
        ...


LARGEST = 2**20  # of what a method may learn in one dimension: slots, units, ranks


def check_size(method: str, name: str, size: int) -> None:
    """InputError for a size that is not from 1 to LARGEST: one far beyond would fill the memory."""
    if not 1 <= size <= LARGEST:
        raise InputError(f"{method} {name} is {size}; expected at {'least 1' if size < 1 else f'most {LARGEST}'}")


def check_start(method: str, start: str) -> None:
    """InputError for a start that is neither random nor vocabulary nor text:SOME WORDS."""
    if start not in ("random", "vocabulary") and not (start.startswith("text:") and start[5:].strip()):
        raise InputError(f"{method} start is {start!r:.100}; expected random, vocabulary or text:SOME WORDS")


def check_text(method: str, start: str, length: int, text: Text | None) -> Text:
    """The text that `start` asks for; InputError where the caller has run none, or one of another length."""
    found = None if text is None else text.embeddings.shape[0]
    if text is None or found != length:
        raise InputError(f"{method} starts from {start!r}: init needs a Text of {length} tokens, given {found}")
    return text
