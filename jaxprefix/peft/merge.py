"""export --merge: the adapted model as a full checkpoint in Hugging Face layout, for servers that load no adapter."""

import shutil
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxprefix.errors import InputError
from jaxprefix.io.hub import MODEL_FILES
from jaxprefix.models import weights
from jaxprefix.models.adapters import Adapter, FullFineTuning, LoRA, NoAdapter
from jaxprefix.runs.base_model import BaseModel

# Beside the weights: configurations, tokenizer, chat template.
COPIED = tuple(pattern for pattern in MODEL_FILES if "safetensors" not in pattern)
BYTES = {"F32": 4, "BF16": 2, "F16": 2}
NAMES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


def merge(
    adapter: Adapter, params: Any, base: BaseModel, directory: Path, shard_size: int
) -> tuple[list[str], list[str]]:
    """Writes the checkpoint into `directory`; (the files of weights, the types that the base's tensors have on disk).

    Sums are computed in float32 and rounded to the type that the tensor has in the base. Never more than one shard of
    at most `shard_size` bytes is in memory beside the adapter.

    Raises:
        InputError: a sum that the type cannot hold.
    """
    with weights.opened(base.directory, base.config) as tensors:
        shapes = weights.disk_shapes(base.config)
        types = {name: tensors[name].dtype for name in shapes}
        sizes = {name: prod(shape) * BYTES[types[name]] for name, shape in shapes.items()}
        changed = _learnt(params, base) if isinstance(adapter, FullFineTuning) else _terms(adapter, params, base)

        def read(name: str) -> np.ndarray:
            old = tensors[name][:]
            with np.errstate(over="ignore"):  # refused in the next line
                new = changed(name, old).astype(old.dtype)
            if not np.isfinite(new).all():
                raise InputError(f"tensor {name} would hold numbers that {NAMES[types[name]]} cannot; nothing written")
            return new

        files = weights.write(sizes, read, directory, shard_size)
    for path in sorted(path for pattern in COPIED for path in base.directory.glob(pattern) if path.is_file()):
        shutil.copyfile(path, directory / path.name)
    return files, sorted({NAMES[kind] for kind in types.values()})


def check_mergeable(adapter: Adapter, method: str) -> None:
    """InputError for a method that is no change of the weights."""
    if isinstance(adapter, NoAdapter):
        raise InputError("--merge: method none has learnt nothing; the base itself is the checkpoint")
    if not isinstance(adapter, LoRA | FullFineTuning):
        raise InputError(
            f"--merge: method {method} does more than change weights; only lora and full can be merged into them"
        )


def _learnt(params: Any, base: BaseModel) -> Callable[[str, np.ndarray], np.ndarray]:
    tensors = weights.on_disk(params, base.config)
    return lambda name, old: tensors[name]


def _terms(adapter: Adapter, params: Any, base: BaseModel) -> Callable[[str, np.ndarray], np.ndarray]:
    """W + (alpha/r)·B A, a layer's projection at a time: all of a large model's would not fit beside it."""
    assert isinstance(adapter, LoRA)
    places = {
        f"model.layers.{layer}.{weights.MODULES[name]}{name}.weight": (name, layer)
        for name in adapter.projections
        for layer in range(base.config.layers)
    }

    def changed(name: str, old: np.ndarray) -> np.ndarray:
        if name not in places:
            return old
        projection, layer = places[name]
        own = jax.tree.map(lambda leaf: leaf[layer : layer + 1], params[projection])
        term = adapter.terms({projection: own})[projection]
        return old.astype(np.float32) + np.asarray(term, np.float32).reshape(old.shape)

    return changed
