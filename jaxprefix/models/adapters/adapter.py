"""The protocol of every method: a frozen dataclass without arrays, with two pure functions."""

from collections.abc import Callable, Sequence
from dataclasses import Field
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from jaxprefix.errors import InputError
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.hooks import Frozen, Hooks, Params


@struct.dataclass
class EncodedPrompt:
    """A prompt of P tokens that ran through the base (adapter_init.py), from which virtual tokens can start."""

    embeddings: Float[Array, "P D"]  # its rows of the embedding table
    inputs: Float[Array, "L P D"]  # the normed input of each layer's attention
    keys: Float[Array, "L P K H"]  # rotated as if the last token had position -1
    values: Float[Array, "L P K H"]


# (start, P) -> the prompt that a start of P virtual tokens means, such as "vocabulary" or "text:SOME WORDS"
EncodeText = Callable[[str, int], EncodedPrompt]


@runtime_checkable
class Adapter(Protocol):
    """A method of adaptation, such as prefix tuning, or a sum of methods. It prints as its configuration."""

    @property
    def starts_as_base(self) -> bool:
        """Whether the initial parameters leave the outputs of the base unchanged, but for rounding."""
        ...

    @property
    def prompt_length(self) -> int:
        """The number of vectors that it puts before the embeddings, where they take positions from the text."""
        ...

    def init(self, key: Array, config: DecoderConfig, frozen: Frozen, encode: EncodeText | None = None) -> Params:
        """The initial parameters (float32). `encode` runs the prompt through the base that they start from, if any."""
        ...

    def bind(
        self,
        config: DecoderConfig,
        params: Params,
        frozen: Frozen,
        key: Array | None = None,
        adapter_ids: Int[Array, " B"] | None = None,
    ) -> tuple[Frozen, Hooks]:
        """The weights and hooks of a call. `key` enables dropout; `adapter_ids` selects an adapter for each row."""
        ...


class Method(Adapter, Protocol):
    """One method: a frozen dataclass of its settings."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
    method: ClassVar[str]  # the name on the command line
    learning_rate: ClassVar[float]  # the default for models with billions of parameters
    embedded_factor: ClassVar[float]  # the default on the embedded model, as a multiple of it (see RunConfig)
    no_decay: ClassVar[
        frozenset[str]
    ]  # the names of leaves without weight decay, which are not linear maps that should stay small


@runtime_checkable
class TrainingForm(Protocol):
    """An adapter with settings or parameters that matter only in training, such as a start, dropout or a magnitude."""

    def inference_form(self, config: DecoderConfig, params: Params, frozen: Frozen) -> tuple[Adapter, Params]:
        """The adapter without them, for these weights. Equal ones can share a batch."""
        ...


def inference_form(adapter: Adapter, config: DecoderConfig, params: Params, frozen: Frozen) -> tuple[Adapter, Params]:
    """`TrainingForm.inference_form`; other adapters are returned as they are."""
    return adapter.inference_form(config, params, frozen) if isinstance(adapter, TrainingForm) else (adapter, params)


# The key of the frozen tree in training under which a penalty finds how important each parameter is.
IMPORTANCE = "importance"


@runtime_checkable
class Regularised(Protocol):
    """An adapter whose loss can have a penalty on its parameters."""

    @property
    def has_penalty(self) -> bool:
        """Whether the loss has the penalty."""
        ...

    @property
    def needs_importance(self) -> bool:
        """Whether the penalty reads `frozen[IMPORTANCE]`, float32 in the structure of the parameters."""
        ...

    def penalty(self, params: Params, frozen: Frozen) -> Float[Array, ""]:
        """The term that is added to the loss of a step, in float32."""
        ...


def needs_importance(adapter: Adapter) -> bool:
    """`Regularised.needs_importance`; False for other adapters."""
    return isinstance(adapter, Regularised) and adapter.needs_importance


@runtime_checkable
class Mergeable(Protocol):
    """A method that is a change of the projections, and can be merged into them."""

    @property
    def projections(self) -> Sequence[str]:
        """The names of the projections that it changes. Each has parameters under its name."""
        ...

    def merged(self, weight: Float[Array, "L O I"], params: Params) -> Float[Array, "L O I"]:
        """The changed projection, its heads folded into one dimension. `params` are those of this projection."""
        ...

    def merged_bias(self, bias: Float[Array, "L O"], params: Params) -> Float[Array, "L O"]:
        """The changed bias of the projection."""
        ...


def of_rows(params: Params, adapter_ids: Int[Array, " B"] | None) -> Params:
    """The leaves `[A, L, ...]` of several adapters as `[L, B, ...]`: row b of the batch has adapter `adapter_ids[b]`.

    Without ids the leaves are those of one adapter, `[L, ...]`, and stay.
    """
    if adapter_ids is None:
        return params
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1)[:, adapter_ids], params)


MAX_SIZE = 2**20  # of a dimension that is learnt: virtual tokens, units, ranks


def check_size(method: str, name: str, size: int) -> None:
    """InputError unless the size is from 1 to MAX_SIZE: a larger one would fill the memory."""
    if not 1 <= size <= MAX_SIZE:
        raise InputError(f"{method} {name} is {size}; expected at {'least 1' if size < 1 else f'most {MAX_SIZE}'}")


def check_projections(method: str, names: Sequence[str], frozen: Frozen) -> None:
    """InputError if the model has not all of these projections: some have no gate."""
    if missing := [name for name in names if name not in frozen["layers"]]:
        raise InputError(f"{method} targets: this model has no {missing[0]}; leave {missing[0][:-5]} out of them")


def check_start(method: str, start: str) -> None:
    """InputError unless the start is random, vocabulary or text:SOME WORDS."""
    if start not in ("random", "vocabulary") and not (start.startswith("text:") and start[5:].strip()):
        raise InputError(f"{method} start is {start!r:.100}; expected random, vocabulary or text:SOME WORDS")


def encoded(method: str, start: str, length: int, encode: EncodeText | None) -> EncodedPrompt:
    """The prompt of `start`. InputError if it is missing or has another length."""
    text = encode(start, length) if encode else None
    size = text.embeddings.shape[0] if text else None
    if text is None or size != length:
        raise InputError(f"{method} starts from {start!r}: init needs a prompt of {length} tokens, given {size}")
    return text
