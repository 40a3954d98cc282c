"""An adapter's directory in PEFT's layout, read strictly and written whole: its configuration and its tensors."""

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
BASE = "jaxprefix_base"  # the key in the file's metadata under which the base's fingerprint stands


def read_adapter(directory: Path) -> tuple[Settings, Tensors, str | None]:
    """(settings, tensors in float32, the base's fingerprint where this package wrote the file).

    Raises:
        InputError: a file is missing or not whole, the weights are pickled, or a tensor is not of finite numbers.
    """
    settings = _settings(directory / CONFIG)
    path = directory / WEIGHTS
    if not path.is_file():
        if (directory / "adapter_model.bin").is_file():
            raise InputError(
                f"{directory} holds pickled weights (adapter_model.bin), which can run code; "
                "load them with PEFT where you trust them and save them as safetensors"
            )
        raise InputError(f"no {WEIGHTS} in {directory}; expected what PEFT's save_pretrained writes")
    try:
        with safe_open(path, framework="np") as file:
            base = (file.metadata() or {}).get(BASE)
            for name in file.keys():
                if (dtype := file.get_slice(name).get_dtype()) not in DTYPES:
                    wanted = ", ".join(DTYPES)
                    raise InputError(f"{path}: tensor {truncate(name)} is {dtype}; expected one of {wanted}")
            tensors = {name: file.get_tensor(name).astype(np.float32) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a whole safetensors file ({one_line(error)}); download it again") from None
    _check_finite(tensors, path)
    return settings, tensors, base


def write_adapter(directory: Path, settings: Settings, tensors: Tensors, base: str, card: str) -> None:
    """Writes settings, tensors, the base's fingerprint and the model card into `directory`, a new one."""
    _check_finite(tensors, directory)
    with new_directory(directory) as place:
        save_file(tensors, place / WEIGHTS, metadata={"format": "pt", BASE: base})
        (place / CONFIG).write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        (place / CARD).write_text(card, encoding="utf-8")


def _settings(path: Path) -> Settings:
    if not path.is_file():
        raise InputError(f"no {CONFIG} in {path.parent}; expected what PEFT's save_pretrained writes")
    return read_object(path)


def _check_finite(tensors: Tensors, where: Path) -> None:
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise InputError(
                f"{where}: tensor {truncate(name)} holds numbers that are not finite; its training has diverged"
            )
