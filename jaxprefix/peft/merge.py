"""Export of the adapted model as a full checkpoint in Hugging Face layout, for servers that load no adapters."""

import json
import shutil
from collections.abc import Callable
from math import prod
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxprefix.errors import InputError
from jaxprefix.io.hub import MODEL_FILES
from jaxprefix.io.strict_json import read_object
from jaxprefix.models import weights
from jaxprefix.models.adapters import METHODS, Adapter, FullFineTuning, Mergeable, NoAdapter
from jaxprefix.models.families import text_values
from jaxprefix.models.hooks import Params
from jaxprefix.models.parameters import BY_NAME, bias_name, weights_of
from jaxprefix.runs.base_model import BaseModel

# The files that are copied: configurations, tokenizer, chat template.
COPIED = tuple(pattern for pattern in MODEL_FILES if "safetensors" not in pattern)
BYTES = {"F32": 4, "BF16": 2, "F16": 2}
NAMES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


def merge(
    adapter: Adapter, params: Params, base: BaseModel, directory: Path, shard_size: int
) -> tuple[list[str], list[str]]:
    """Writes the checkpoint into `directory`; (its files of weights, the dtypes of the base's tensors on disk).

    Sums are computed in float32 and rounded to the dtype of the tensor in the base. Beside the adapter, memory holds
    one shard of at most `shard_size` bytes.

    Raises:
        InputError: if a sum overflows the dtype.
    """
    with weights.opened(base.directory, base.config) as tensors:
        shapes = weights.disk_shapes(base.config)
        types = {name: tensors[name].dtype for name in shapes}
        sizes = {name: prod(shape) * BYTES[types[name]] for name, shape in shapes.items()}
        update = _trained(params, base) if isinstance(adapter, FullFineTuning) else _changed(adapter, params, base)

        def read(name: str) -> np.ndarray:
            old = tensors[name][:]
            with np.errstate(over="ignore"):  # an overflow raises the error below
                new = update(name, old).astype(old.dtype)
            if not np.isfinite(new).all():
                raise InputError(f"tensor {name} would overflow {NAMES[types[name]]}; nothing was written")
            return new

        files = weights.write(sizes, read, directory, shard_size)
    for path in sorted(path for pattern in COPIED for path in base.directory.glob(pattern) if path.is_file()):
        shutil.copyfile(path, directory / path.name)
    _write_tied(directory / "config.json", base.config.tied)
    return files, sorted({NAMES[kind] for kind in types.values()})


def _write_tied(path: Path, tied: bool) -> None:
    """Corrects the copied config.json, which must describe the text model alone, with its head as it is stored.

    Programs that believe a wrong `tie_word_embeddings` would drop a stored head.
    """
    values = read_object(path)
    own = dict(text_values(values))
    if bool(own.get("tie_word_embeddings")) != tied:
        own["tie_word_embeddings"] = tied
    if own != values:
        path.write_text(json.dumps(own, indent=2) + "\n", encoding="utf-8")


def check_mergeable(adapter: Adapter, method: str) -> None:
    """InputError if the method cannot be expressed as a change of the weights."""
    if isinstance(adapter, NoAdapter):
        raise InputError("--merge: method none has no parameters; the base itself is the checkpoint")
    if not isinstance(adapter, Mergeable | FullFineTuning):
        able = [kind.method for kind in METHODS if issubclass(kind, FullFineTuning) or hasattr(kind, "merged")]
        names = f"{', '.join(able[:-1])} and {able[-1]}"
        raise InputError(f"--merge: method {method} does more than change weights; only {names} can be merged")


def _trained(params: Params, base: BaseModel) -> Callable[[str, np.ndarray], np.ndarray]:
    tensors = weights.on_disk(params, base.config)
    return lambda name, old: tensors[name]


def _changed(adapter: Adapter, params: Params, base: BaseModel) -> Callable[[str, np.ndarray], np.ndarray]:
    """Changes one projection of one layer at a time; all of them at once would need too much memory."""
    assert isinstance(adapter, Mergeable)
    locations: dict[str, tuple[str, int, Callable]] = {}  # by the name of a tensor
    for name in adapter.projections:
        for row, change in ((name, adapter.merged), (bias_name(name), adapter.merged_bias)):
            keys = BY_NAME[row].keys(base.config) if row in weights_of(base.config) else []
            locations |= {key: (name, layer, change) for layer, key in enumerate(keys)}

    def update(name: str, old: np.ndarray) -> np.ndarray:
        if name not in locations:
            return old
        projection, layer, change = locations[name]
        part = jax.tree.map(lambda leaf: leaf[layer : layer + 1], params[projection])
        return np.asarray(change(jnp.asarray(old[None], jnp.float32), part))[0]

    return update
