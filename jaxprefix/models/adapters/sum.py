"""Sums of methods, such as prefix+lora. Each has its own parameters, and their hooks are merged."""

from dataclasses import dataclass

import jax
from jaxtyping import Array

from jaxprefix.errors import InputError
from jaxprefix.models.adapters.adapter import Adapter, EncodeText, inference_form
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.hooks import Frozen, Hooks, Params, merge


def add(*adapters: Adapter) -> Adapter:
    """The sum of the adapters, or the only one. Sums among them are flattened. InputError for anything else."""
    for adapter in adapters or (None,):
        if isinstance(adapter, type) or not isinstance(adapter, Adapter):
            raise InputError(f"{adapter!r} is not a method; expected one such as PrefixTuning(length=10)")
    members = tuple(member for adapter in adapters for member in _members(adapter))
    return adapters[0] if len(adapters) == 1 else Sum(members)


def _members(adapter: Adapter) -> tuple[tuple[str, Adapter], ...]:
    return adapter.members if isinstance(adapter, Sum) else ((adapter.method, adapter),)  # type: ignore[attr-defined]


class Summand:
    """Gives a method the operator +: `PrefixTuning() + LoRA()` is their sum."""

    def __add__(self: Adapter, other: Adapter) -> Adapter:
        return add(self, other)

    def __radd__(self: Adapter, other: Adapter) -> Adapter:
        return add(other, self)


@dataclass(frozen=True)
class Sum(Summand):
    """Parameters: `{method: parameters}`. The members are different methods; none and full cannot be members."""

    members: tuple[tuple[str, Adapter], ...]

    def __post_init__(self) -> None:
        names = [name for name, _ in self.members]
        alone = [name for name in names if name in ("none", "full")]
        if alone:
            raise InputError(f"method {'+'.join(names)!r}: {alone[0]} cannot be part of a sum")
        if len(set(names)) < len(names):
            raise InputError(f"method {'+'.join(names)!r}: a method can be in a sum only once")

    @property
    def starts_as_base(self) -> bool:
        return all(member.starts_as_base for _, member in self.members)

    @property
    def prompt_length(self) -> int:
        return sum(member.prompt_length for _, member in self.members)

    def inference_form(self, config: DecoderConfig, params: Params, frozen: Frozen) -> tuple["Sum", Params]:
        """The sum of the members' forms."""
        forms = {name: inference_form(member, config, params[name], frozen) for name, member in self.members}
        return Sum(tuple((name, form) for name, (form, _) in forms.items())), {
            name: params for name, (_, params) in forms.items()
        }

    def init(self, key: Array, config: DecoderConfig, frozen: Frozen, encode: EncodeText | None = None) -> Params:
        keys = jax.random.split(key, len(self.members))
        return {
            name: member.init(part, config, frozen, encode)
            for (name, member), part in zip(self.members, keys, strict=True)
        }

    def bind(
        self,
        config: DecoderConfig,
        params: Params,
        frozen: Frozen,
        key: Array | None = None,
        adapter_ids: Array | None = None,
    ) -> tuple[Frozen, Hooks]:
        parts = []
        for index, (name, member) in enumerate(self.members):
            member_key = None if key is None else jax.random.fold_in(key, index)
            parts.append(member.bind(config, params[name], frozen, member_key, adapter_ids)[1])
        return frozen, merge(parts)
