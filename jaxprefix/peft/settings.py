"""adapter_config.json: every key is read, known to change no number, or refused by name.

The keys are those of the configuration classes in PEFT 0.21 (https://github.com/huggingface/peft).
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from jaxprefix.errors import InputError
from jaxprefix.io.messages import short_repr, truncate
from jaxprefix.io.values import positive
from jaxprefix.models.adapters.adapter import MAX_SIZE

Settings = dict[str, Any]  # the object in adapter_config.json
Tensors = dict[str, np.ndarray]  # adapter_model.safetensors: name -> tensor, in float32

COMMON = frozenset("peft_type base_model_name_or_path revision inference_mode auto_mapping peft_version".split())


def common(peft_type: str) -> Settings:
    """The settings of every adapter_config.json; the export adds base_model_name_or_path."""
    return {"peft_type": peft_type, "task_type": "CAUSAL_LM", "inference_mode": True}


def check(settings: Settings, read: Iterable[str], inert: Iterable[str], refused: Mapping[str, str]) -> None:
    """InputError for a setting that would change the numbers and is not supported.

    Args:
        read: keys that the caller reads.
        inert: keys that change no number of a trained adapter.
        refused: keys that must be absent or falsy, with the reason.
    """
    if settings.get("task_type") not in (None, "CAUSAL_LM"):
        raise InputError(f"task_type is {short_repr(settings['task_type'])}; expected CAUSAL_LM, the only task here")
    for name, why in refused.items():
        if settings.get(name):
            raise InputError(f"{name} is {short_repr(settings[name])}: {why}")
    known = COMMON | set(read) | set(inert) | {"task_type"}
    for name, value in sorted(settings.items()):
        if value and name not in known:
            raise InputError(
                f"unknown key {short_repr(name)} (value {short_repr(value)}); it could change the numbers, "
                "so it is not ignored"
            )


def whole(settings: Settings, name: str) -> int:
    """A whole number of at least 1."""
    return positive(settings, name, most=MAX_SIZE)


def agree(settings: Settings, name: str, expected: int) -> None:
    """InputError if a size is set and differs from this base's."""
    if settings.get(name) not in (None, expected):
        raise InputError(
            f"{name} is {short_repr(settings[name])}; this base needs {expected}; name the adapter's base with --model"
        )


def take(tensors: Tensors, shapes: Mapping[str, tuple[int, ...]]) -> list[np.ndarray]:
    """The tensors in the order of `shapes`; InputError if one is missing, unknown or has another shape."""
    if missing := sorted(set(shapes) - set(tensors)):
        raise InputError(f"tensor {truncate(missing[0])} is missing ({len(missing)} in all)")
    if extra := sorted(set(tensors) - set(shapes)):
        raise InputError(f"tensor {truncate(extra[0])} is unknown ({len(extra)} in all)")
    for name, shape in shapes.items():
        if tensors[name].shape != shape:
            raise InputError(f"tensor {name} has shape {short_repr(list(tensors[name].shape))}; expected {list(shape)}")
    return [tensors[name] for name in shapes]
