"""Reads and writes an adapter directory in PEFT's layout: the configuration and the tensors."""

import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from jaxprefix.errors import InputError
from jaxprefix.io.atomic import new_directory
from jaxprefix.io.messages import one_line, truncate
from jaxprefix.io.strict_json import read_object
from jaxprefix.models.stored import DTYPES
from jaxprefix.peft.settings import Settings, Tensors

CONFIG, WEIGHTS, CARD = "adapter_config.json", "adapter_model.safetensors", "README.md"
BASE = "jaxprefix_base"  # the metadata key of the base's fingerprint


def read_adapter(directory: Path) -> tuple[Settings, Tensors, str | None]:
    """(settings, tensors in float32, the base's fingerprint if this package wrote the file).

    Raises:
        InputError: if a file is missing or incomplete, the weights are pickled, or a tensor has non-finite numbers.
    """
    settings = _settings(directory / CONFIG)
    path = directory / WEIGHTS
    if not path.is_file():
        if (directory / "adapter_model.bin").is_file():
            raise InputError(
                f"{directory} holds pickled weights (adapter_model.bin), which can run code; "
                "if you trust them, load them with PEFT and save them as safetensors"
            )
        raise InputError(f"no {WEIGHTS} in {directory}; expected what PEFT's save_pretrained writes")
    try:
        with safe_open(path, framework="np") as file:
            base = (file.metadata() or {}).get(BASE)
            for name in file.keys():
                if (dtype := file.get_slice(name).get_dtype()) not in DTYPES:
                    raise InputError(f"{path}: tensor {truncate(name)} is {dtype}; expected one of {', '.join(DTYPES)}")
            tensors = {name: file.get_tensor(name).astype(np.float32) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a whole safetensors file ({one_line(error)}); download it again") from None
    _check_finite(tensors, path)
    return settings, tensors, base


def write_adapter(directory: Path, settings: Settings, tensors: Tensors, base: str, card: str) -> None:
    """Writes settings, tensors, the base's fingerprint and the model card into `directory`, which must be new."""
    _check_finite(tensors, directory)
    with new_directory(directory) as new:
        save_file(tensors, new / WEIGHTS, metadata={"format": "pt", BASE: base})
        (new / CONFIG).write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        (new / CARD).write_text(card, encoding="utf-8")


def _settings(path: Path) -> Settings:
    if not path.is_file():
        raise InputError(f"no {CONFIG} in {path.parent}; expected what PEFT's save_pretrained writes")
    return read_object(path)


def _check_finite(tensors: Tensors, source: Path) -> None:
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise InputError(
                f"{source}: tensor {truncate(name)} holds numbers that are not finite; the training diverged"
            )
