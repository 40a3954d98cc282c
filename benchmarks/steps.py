"""The folder that both sides train on: weights, adapters and rows.

model/          a Llama with random weights in Hugging Face layout
METHOD.npz      the adapter's parameters in our layout; METHOD/ has the same in PEFT's
rows.json       for each step and row, the tokens and the number of prompt tokens
"""

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import jax
import ml_dtypes
import numpy as np
from numpy.typing import DTypeLike

from jaxprefix.models import adapter_init, weights
from jaxprefix.models.adapters import Adapter, FullFineTuning, LlamaAdapter, LoRA, PrefixTuning, SoftPrompt
from jaxprefix.models.adapters.adapter import Params
from jaxprefix.models.adapters.lora import TARGETS
from jaxprefix.models.config import DecoderConfig
from jaxprefix.peft.convert import to_peft
from jaxprefix.peft.files import write_adapter
from jaxprefix.tasks.encoding import Encoded

RATE = 1e-3  # of AdamW, without weight decay and clipping
# Number of random values. Tensors repeat them from different offsets, so that 16 GB are written in seconds.
TABLE = 2**20 + 7


def methods(layers: int) -> dict[str, Adapter]:
    """The methods that both sides have, in the same parametrisation."""
    return {
        "prefix": PrefixTuning(10, "all", source="kv"),
        "llama-adapter": LlamaAdapter(10, "all", gate="layer", activation="identity"),
        "soft-prompt": SoftPrompt(10),
        "lora": LoRA(4, 8.0, "q,v"),
        "lora-all": LoRA(16, 32.0, ",".join(TARGETS)),
        "dora": LoRA(4, 8.0, "q,v", dora=True),
        "full": FullFineTuning(),
    }


@dataclass(frozen=True)
class Rows:
    """S steps of B rows of `time` tokens. The last token of a row is only a target."""

    steps: list[list[Encoded]]

    @property
    def time(self) -> int:
        return max(row.length for step in self.steps for row in step)

    @property
    def batch(self) -> int:
        return len(self.steps[0])

    @property
    def learnt(self) -> float:
        """The mean number of learnt tokens per row."""
        return sum(len(row.response) for step in self.steps for row in step) / (len(self.steps) * self.batch)


def write_rows(folder: Path, steps: list[list[tuple[list[int], int]]]) -> None:
    (folder / "rows.json").write_text(json.dumps(steps))


def read_rows(folder: Path) -> Rows:
    steps = json.loads((folder / "rows.json").read_text())
    return Rows([[Encoded(ids[:prompt], ids[prompt:], cut=False) for ids, prompt in step] for step in steps])


def random_rows(sizes: DecoderConfig, steps: int, batch: int, time: int, learnt: int) -> list[list[tuple]]:
    """Rows of random tokens. The last `learnt` tokens of a row are the response."""
    ids = np.random.default_rng(0).integers(0, sizes.vocabulary_size, (steps, batch, time))
    return [[(row.tolist(), time - learnt) for row in step] for step in ids]


def write_model(folder: Path, values: dict[str, Any], dtype: DTypeLike) -> DecoderConfig:
    """Writes random weights with the scale of Hugging Face's initialization, in shards of 4 GB."""
    directory = folder / "model"
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(values))
    sizes = DecoderConfig.read(directory)
    table = (0.02 * np.random.default_rng(0).normal(size=TABLE)).astype(dtype)

    def tensor(name: str) -> np.ndarray:
        shape = shapes[name]
        if len(shape) == 1:
            return np.ones(shape, dtype)
        return np.resize(np.roll(table, zlib.crc32(name.encode()) % TABLE), shape)

    shapes = weights.disk_shapes(sizes)
    bytes_of = {name: int(np.prod(shape)) * np.dtype(dtype).itemsize for name, shape in shapes.items()}
    weights.write(bytes_of, tensor, directory, shard_size=4 * 10**9)
    return sizes


def write_adapters(folder: Path, sizes: DecoderConfig, names: list[str]) -> None:
    """Writes random parameters. None is zero, so that all of them affect the loss."""
    random = np.random.default_rng(0)
    for name in names:
        adapter = methods(sizes.layers)[name]
        if isinstance(adapter, FullFineTuning):
            continue
        shapes = adapter_init.abstract_params(adapter, sizes)
        params = jax.tree.map(lambda leaf: (0.1 * random.normal(size=leaf.shape)).astype(np.float32), shapes)
        np.savez(folder / f"{name}.npz", **dict(_flat(params)))
        settings, tensors = to_peft(adapter, params, sizes, _no_projections)
        settings |= {"base_model_name_or_path": str(folder / "model"), "revision": None}
        write_adapter(folder / name, settings, tensors, "", "")


def read_adapter(folder: Path, sizes: DecoderConfig, name: str) -> tuple[Adapter, Params | None]:
    """(adapter, parameters); no parameters for full fine-tuning, which starts from the weights."""
    adapter = methods(sizes.layers)[name]
    if isinstance(adapter, FullFineTuning):
        return adapter, None
    shapes = adapter_init.abstract_params(adapter, sizes)
    with np.load(folder / f"{name}.npz") as arrays:
        leaves = [arrays[key] for key, _ in _flat(shapes)]
    return adapter, jax.tree.unflatten(jax.tree.structure(shapes), leaves)


def _flat(tree: Params) -> list[tuple[str, Any]]:
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def _no_projections(name: str) -> NoReturn:
    raise AssertionError(f"learnt keys and values need no {name}")


DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16}
