"""Checkpoints in Hugging Face layout: names, shapes and files of tensors, checked; and writing them. Without torch.

A stacked leaf `[L, ...]` is the same tensor of L layers. A missing, unknown or misshapen tensor is an InputError that
names it. Pickled `.bin` weights are refused, because loading them can run code.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from jaxprefix.errors import InputError
from jaxprefix.io.messages import one_line, short_repr, truncate
from jaxprefix.io.strict_json import read_object
from jaxprefix.models import decoder
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.stored import DTYPES, Stored, stored

LONGEST_NAME = 60  # characters of a file name; file systems allow 255 bytes
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
TOP = {"embed_tokens": "model.embed_tokens.weight", "norm": "model.norm.weight", "lm_head": "lm_head.weight"}
MODULES: dict[str, str] = {
    **dict.fromkeys(("q_proj", "k_proj", "v_proj", "o_proj"), "self_attn."),
    **dict.fromkeys(("gate_proj", "up_proj", "down_proj"), "mlp."),
}


@contextmanager
def opened(directory: Path, config: DecoderConfig) -> Iterator[dict[str, Stored]]:
    """The tensors of a checkpoint by their Hugging Face names, checked against `config` but not read.

    `tensors[name][:]` reads one. An InputError names the file or tensor that is damaged or does not fit.
    """
    with ExitStack() as stack:
        files = {path: stack.enter_context(_open(path)) for path in sorted(set(_places(directory).values()))}
        tensors = _tensors(files)
        _check(tensors, config, directory)
        yield tensors


def save(frozen: decoder.Frozen, config: DecoderConfig, directory: Path) -> None:
    """Writes the weights as `model.safetensors`, in their dtype; the caller writes config.json and the tokenizer."""
    tensors = on_disk(jax.device_get(frozen), config)
    write({name: tensor.nbytes for name, tensor in tensors.items()}, tensors.__getitem__, directory)


def write(
    sizes: Mapping[str, int], read: Callable[[str], np.ndarray], directory: Path, shard_size: int | None = None
) -> list[str]:
    """Writes the tensors of a checkpoint and returns the names of its files. One file at a time is in memory.

    Args:
        sizes: bytes of each tensor by its name, in the order in which they are written.
        read: gives the tensor of a name.
        directory: where `model.safetensors` is made, or shards and their index.
        shard_size: bytes of a file; a tensor that is larger has a file of its own. None: a single file.
    """
    shards = _shards(sizes, shard_size)
    files = [f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors" for number in range(len(shards))]
    files = files if len(shards) > 1 else [SINGLE]
    for file, names in zip(files, shards, strict=True):
        save_file(
            {name: np.ascontiguousarray(read(name)) for name in names}, directory / file, metadata={"format": "pt"}
        )
        (directory / file).chmod(0o644)  # the library's default is 0600
    if len(files) > 1:
        places = {name: file for file, names in zip(files, shards, strict=True) for name in names}
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": places}
        (directory / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return files


def on_disk(tree: PyTree, config: DecoderConfig) -> dict[str, np.ndarray]:
    """The tensors of a tree (numpy) by their Hugging Face names, in the shapes on disk, as views."""
    tensors = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        names = tensor_names(path, config)
        for name, part in zip(names, leaf if is_stacked(path) else [leaf], strict=True):
            tensors[name] = part.reshape(_disk_shape(path, part.shape))
    return tensors


def disk_shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """The name and shape of every tensor in a checkpoint of this configuration."""
    shapes = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(decoder.shapes(config)):
        shape = leaf.shape[1:] if is_stacked(path) else leaf.shape
        shapes |= dict.fromkeys(tensor_names(path, config), _disk_shape(path, shape))
    return shapes


def _shards(sizes: Mapping[str, int], limit: int | None) -> list[list[str]]:
    """The names in order, split into files of at most `limit` bytes."""
    shards, room = [[]], limit
    for name, size in sizes.items():
        if room is not None and limit is not None:
            if size > room and shards[-1]:
                shards.append([])
                room = limit
            room -= size
        shards[-1].append(name)
    return shards


def fingerprint(directory: Path) -> str:
    """A SHA-256 of a checkpoint: of its small files, and of the size and up to 16 MiB of each large file."""
    digest = hashlib.sha256()
    for path in (directory / name for name in ("config.json", "tokenizer.json", "tokenizer.model")):
        digest.update(path.read_bytes() if path.is_file() else b"-")
    for path in sorted(set(_places(directory).values())):
        size, block = path.stat().st_size, 2**20
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            for offset in sorted({index * max(size - block, 0) // 15 for index in range(16)}):
                file.seek(offset)
                digest.update(file.read(block))
    return digest.hexdigest()


def tensor_names(path: tuple, config: DecoderConfig) -> list[str]:
    """The Hugging Face names of the leaf at `path`: one, or one per layer."""
    name = path[-1].key
    if not is_stacked(path):
        return [TOP[name]]
    return [f"model.layers.{layer}.{MODULES.get(name, '')}{name}.weight" for layer in range(config.layers)]


def is_stacked(path: tuple) -> bool:
    return path[0].key == "layers"


def _disk_shape(path: tuple, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Heads are one dimension on disk: `[N·H, D]`, and `[D, N·H]` for o_proj."""
    if len(shape) < 3:
        return shape
    return (shape[0], shape[1] * shape[2]) if path[-1].key == "o_proj" else (shape[0] * shape[1], shape[2])


def _places(directory: Path) -> dict[str, Path]:
    """The file of each tensor; with a single file, the key "" means all tensors."""
    if (directory / INDEX).is_file():
        places = read_object(directory / INDEX).get("weight_map")
        if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
            raise InputError(f"{directory / INDEX} has no weight_map from tensor names to files")
        # A file may be a link out of the directory, as in the Hub's cache.
        for name in sorted(set(places.values())):
            if Path(name).name != name or not name.endswith(".safetensors") or len(name) > LONGEST_NAME:
                raise InputError(
                    f"{directory / INDEX} points to {short_repr(name)}; expected a .safetensors file beside it"
                )
            if not (directory / name).is_file():
                raise InputError(
                    f"{directory / INDEX} names {truncate(name)}, which is not there; download the model again"
                )
        return {tensor: directory / name for tensor, name in places.items()}
    if (directory / SINGLE).is_file():
        return {"": directory / SINGLE}
    if pickled := sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in directory.glob(pattern)):
        raise InputError(
            f"{directory} holds only pickled weights ({pickled[0]}), which can run code; convert them to safetensors"
        )
    raise InputError(f"no weights in {directory}; expected {SINGLE} or {INDEX} with its shards")


def _open(path: Path) -> Any:
    try:
        return safe_open(path, framework="np")
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a whole safetensors file ({one_line(error)}); download it again") from None


def _tensors(files: Mapping[Path, Any]) -> dict[str, Stored]:
    """The tensors of the files by name, not read yet."""
    tensors: dict[str, Stored] = {}
    for path in files:
        for name, tensor in stored(path).items():
            if name in tensors:
                raise InputError(f"{path}: tensor {truncate(name)} is in another shard too; download the model again")
            tensors[name] = tensor
    return tensors


def _check(tensors: Mapping[str, Any], config: DecoderConfig, directory: Path) -> None:
    wanted = disk_shapes(config)
    # A tied model may contain its head twice, and old Llamas contain the rotary frequencies. Both are redundant.
    spare = {name for name in tensors if name.endswith(".rotary_emb.inv_freq")} | (
        {TOP["lm_head"]} if config.tied else set()
    )
    if missing := sorted(set(wanted) - set(tensors)):
        raise InputError(
            f"{directory}: tensor {missing[0]} is missing ({len(missing)} in all); config.json asks for it"
        )
    if extra := sorted(set(tensors) - set(wanted) - spare):
        raise InputError(
            f"{directory}: tensor {truncate(extra[0])} is unknown ({len(extra)} in all); this architecture has none"
        )
    for name, shape in wanted.items():
        if tensors[name].shape != shape:
            raise InputError(
                f"{directory}: tensor {name} has shape {short_repr(list(tensors[name].shape))}; "
                f"config.json asks for {list(shape)}"
            )
        if tensors[name].dtype not in DTYPES:
            raise InputError(
                f"{directory}: tensor {name} is {tensors[name].dtype}; expected one of {', '.join(DTYPES)}"
            )
