"""Checkpoints in Hugging Face layout: names, shapes and files of tensors, checked; and writing them. Without torch.

A stacked leaf `[L, ...]` is the same tensor of L layers. A missing, unknown or misshapen tensor is an InputError that
names it. Pickled `.bin` weights are refused, because loading them can run code.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import jax
import numpy as np
from jaxtyping import PyTree
from safetensors.numpy import save_file

from jaxprefix.errors import InputError
from jaxprefix.io.messages import short_repr, truncate
from jaxprefix.models import decoder
from jaxprefix.models.checkpoint_files import INDEX, SINGLE, checkpoint_files, open_file
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.parameters import BY_NAME, EMBEDDING, HEAD, weights_of
from jaxprefix.models.stored import DTYPES, Stored, same, stored

T = TypeVar("T")
# Names in checkpoints of models for text and images: the start of the text model's, and what it stands for alone
INNER = {"language_model.model.": "model.", "model.language_model.": "model.", "language_model.lm_head.": "lm_head."}
IMAGES = ("vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector.")


@contextmanager
def opened(directory: Path, config: DecoderConfig) -> Iterator[dict[str, Stored]]:
    """The tensors of a checkpoint by their Hugging Face names, checked against `config` but not read.

    `tensors[name][:]` reads one. An InputError names the file or tensor that is damaged or does not fit.
    """
    with _tensors(directory, config) as tensors:
        yield _checked(tensors, config, directory)


def with_stored_head(config: DecoderConfig, directory: Path) -> DecoderConfig:
    """The configuration, without `tied` if the checkpoint has a head that is not its embedding, as in transformers.

    Adapters that train both, merged by other programs, leave such checkpoints.
    """
    if not config.tied:
        return config
    with _tensors(directory, config) as tensors:
        embedding, head = tensors.get(EMBEDDING), tensors.get(HEAD)
        tied = embedding is None or head is None or same(embedding, head)
    return replace(config, tied=tied)


def files_of(directory: Path, config: DecoderConfig) -> list[Path]:
    """The files of the checkpoint in a directory."""
    return checkpoint_files(directory, lambda names: not _missing(names, config))


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
        row = BY_NAME[path[-1].key]
        for name, part in zip(row.keys(config), leaf if row.in_layers else [leaf], strict=True):
            tensors[name] = part.reshape(row.disk_shape(part.shape))
    return tensors


def disk_shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """The name and shape of every tensor in a checkpoint of this configuration."""
    rows = weights_of(config).values()
    return {name: row.disk_shape(row.shape(config)) for row in rows for name in row.keys(config)}


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


def fingerprint(directory: Path, config: DecoderConfig) -> str:
    """A SHA-256 of a checkpoint: of its small files, and of the size and up to 16 MiB of each large file."""
    digest = hashlib.sha256()
    for path in (directory / name for name in ("config.json", "tokenizer.json", "tokenizer.model")):
        digest.update(path.read_bytes() if path.is_file() else b"-")
    for path in files_of(directory, config):
        size, block = path.stat().st_size, 2**20
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            for offset in sorted({index * max(size - block, 0) // 15 for index in range(16)}):
                file.seek(offset)
                digest.update(file.read(block))
    return digest.hexdigest()


@contextmanager
def _tensors(directory: Path, config: DecoderConfig) -> Iterator[dict[str, Stored]]:
    """All tensors of the checkpoint by name, not read yet. One may be in two files if both copies are equal."""
    tensors: dict[str, Stored] = {}
    with ExitStack() as stack:
        for path in files_of(directory, config):
            stack.enter_context(open_file(path))
            for name, tensor in text_tensors(stored(path)).items():
                if name in tensors and not same(tensors[name], tensor):
                    raise InputError(
                        f"{path}: tensor {truncate(name)} is in {tensors[name].path.name} too, with other numbers; "
                        "download the model again"
                    )
                tensors[name] = tensor
        yield tensors


def text_tensors(tensors: Mapping[str, T]) -> dict[str, T]:
    """The tensors of a text model, by its own names, if these are of a model that holds it beside an image encoder."""
    if not any(name.startswith(tuple(INNER)) for name in tensors):
        return dict(tensors)
    found = {}
    for name, tensor in tensors.items():
        prefix = next((prefix for prefix in INNER if name.startswith(prefix)), None)
        if prefix:
            found[INNER[prefix] + name.removeprefix(prefix)] = tensor
        elif not name.startswith(IMAGES):
            found[name] = tensor
    return found


def _missing(names: Collection[str], config: DecoderConfig) -> list[str]:
    """The tensors of the model that are not among the names. A tied head can stand for the embedding."""
    names = text_tensors(dict.fromkeys(names))
    there = {*names, EMBEDDING} if config.tied and HEAD in names else set(names)
    return sorted(set(disk_shapes(config)) - there)


def _checked(tensors: dict[str, Stored], config: DecoderConfig, directory: Path) -> dict[str, Stored]:
    """The tensors of the model, by the names of `disk_shapes`. Others must follow from them, or are an InputError."""
    if missing := _missing(tensors, config):
        hint = "; a model whose head is its embedding has tie_word_embeddings true" if missing == [HEAD] else ""
        raise InputError(
            f"{directory}: tensor {missing[0]} is missing ({len(missing)} in all); config.json asks for it{hint}"
        )
    tensors = tensors if EMBEDDING in tensors else tensors | {EMBEDDING: tensors[HEAD]}
    wanted = disk_shapes(config)
    frequencies = [name for name in tensors if name.endswith(".rotary_emb.inv_freq")]
    redundant = {*frequencies, HEAD} if config.tied else set(frequencies)
    if extra := sorted(set(tensors) - set(wanted) - redundant):
        raise InputError(
            f"{directory}: tensor {truncate(extra[0])} is unknown ({len(extra)} in all); this architecture has none"
        )
    for name, shape in wanted.items():
        _check_form(name, tensors[name], shape, directory)
    if config.tied and HEAD in tensors and not same(tensors[HEAD], tensors[EMBEDDING]):
        raise InputError(
            f"{directory}: tie_word_embeddings is true, but tensor {HEAD} is not equal to {EMBEDDING}; "
            "set it to false in config.json to use the stored head"
        )
    for name in frequencies:
        _check_frequencies(name, tensors[name], config, directory)
    return {name: tensors[name] for name in wanted}


def _check_form(name: str, tensor: Stored, shape: tuple[int, ...], directory: Path) -> None:
    if tensor.shape != shape:
        raise InputError(
            f"{directory}: tensor {name} has shape {short_repr(list(tensor.shape))}; config.json asks for {list(shape)}"
        )
    if tensor.dtype not in DTYPES:
        raise InputError(f"{directory}: tensor {name} is {tensor.dtype}; expected one of {', '.join(DTYPES)}")


def _check_frequencies(name: str, tensor: Stored, config: DecoderConfig, directory: Path) -> None:
    """Old Llamas store the rotary frequencies, as rope_theta gives them and with or without a linear factor."""
    size, rope = config.head_size, config.rope
    expected = rope.theta ** -(np.arange(0, size, 2) / size)
    readable = tensor.shape == expected.shape and tensor.dtype in DTYPES
    found = tensor[:].astype(np.float64) if readable else None
    if found is None or not any(np.allclose(found, each, 1e-2, 1e-6) for each in (expected, expected / rope.factor)):
        raise InputError(
            f"{directory}: tensor {truncate(name)} does not follow from rope_theta {rope.theta:g} and head_dim {size}; "
            "the model was trained with other positions: correct config.json"
        )
