"""What training steps are timed on, the same for both sides: a folder with weights, an adapter, rows and rates.

model/          a Llama of random weights in Hugging Face layout
METHOD.npz      the adapter's parameters in our layout; METHOD/ the same in PEFT's
rows.json       per step and row the tokens, and how many of them are the prompt
"""

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np

from jaxprefix.models import adapter_init, weights
from jaxprefix.models.adapters import Adapter, FullFineTuning, LlamaAdapter, LoRA, PrefixTuning, SoftPrompt
from jaxprefix.models.config import DecoderConfig
from jaxprefix.peft.convert import to_peft
from jaxprefix.peft.files import write_adapter
from jaxprefix.tasks.encoding import Encoded

RATE = 1e-3  # of AdamW, without weight decay and clipping
TABLE = 2**20 + 7  # random numbers that all tensors are made of, each from another place on: 16 GB in seconds


def methods(layers: int) -> dict[str, Adapter]:
    """All that both sides have, in the same parametrisation."""
    return {
        "prefix": PrefixTuning(10, "all", source="kv"),
        "llama-adapter": LlamaAdapter(10, "all", gate="layer", activation="identity"),
        "soft-prompt": SoftPrompt(10),
        "lora": LoRA(4, 8.0, "q,v"),
        "full": FullFineTuning(),
    }


@dataclass(frozen=True)
class Rows:
    """S steps of B rows, all of `time` tokens; the last one of a row is only a target."""

    steps: list[list[Encoded]]

    @property
    def time(self) -> int:
        return max(row.length for step in self.steps for row in step)

    @property
    def batch(self) -> int:
        return len(self.steps[0])

    @property
    def learnt(self) -> float:
        """Learnt tokens a row, in the mean."""
        return sum(len(row.response) for step in self.steps for row in step) / (len(self.steps) * self.batch)


def write_rows(folder: Path, steps: list[list[tuple[list[int], int]]]) -> None:
    (folder / "rows.json").write_text(json.dumps(steps))


def read_rows(folder: Path) -> Rows:
    steps = json.loads((folder / "rows.json").read_text())
    return Rows([[Encoded(ids[:prompt], ids[prompt:], cut=False) for ids, prompt in step] for step in steps])


def random_rows(sizes: DecoderConfig, steps: int, batch: int, time: int, learnt: int) -> list[list[tuple]]:
    """Rows of random tokens, of which the last `learnt` are the response."""
    ids = np.random.default_rng(0).integers(0, sizes.vocabulary_size, (steps, batch, time))
    return [[(row.tolist(), time - learnt) for row in step] for step in ids]


def write_model(folder: Path, values: dict[str, Any], dtype: Any) -> DecoderConfig:
    """Weights as Hugging Face draws them, in shards of 4 GB."""
    place = folder / "model"
    place.mkdir(parents=True)
    (place / "config.json").write_text(json.dumps(values))
    sizes = DecoderConfig.read(place)
    table = (0.02 * np.random.default_rng(0).normal(size=TABLE)).astype(dtype)

    def tensor(name: str) -> np.ndarray:
        shape = shapes[name]
        if len(shape) == 1:
            return np.ones(shape, dtype)
        return np.resize(np.roll(table, zlib.crc32(name.encode()) % TABLE), shape)

    shapes = weights.disk_shapes(sizes)
    bytes_of = {name: int(np.prod(shape)) * np.dtype(dtype).itemsize for name, shape in shapes.items()}
    weights.write(bytes_of, tensor, place, shard_size=4 * 10**9)
    return sizes


def write_adapters(folder: Path, sizes: DecoderConfig, names: list[str]) -> None:
    """Random parameters that are worth learning on: nothing starts at zero."""
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


def read_adapter(folder: Path, sizes: DecoderConfig, name: str) -> tuple[Adapter, Any]:
    """The method and its parameters; of full fine-tuning None, which starts from the weights."""
    adapter = methods(sizes.layers)[name]
    if isinstance(adapter, FullFineTuning):
        return adapter, None
    shapes = adapter_init.abstract_params(adapter, sizes)
    with np.load(folder / f"{name}.npz") as found:
        leaves = [found[key] for key, _ in _flat(shapes)]
    return adapter, jax.tree.unflatten(jax.tree.structure(shapes), leaves)


def _flat(tree: Any) -> list[tuple[str, Any]]:
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def _no_projections(name: str) -> Any:
    raise AssertionError(f"learnt keys and values need no {name}")


DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16}
