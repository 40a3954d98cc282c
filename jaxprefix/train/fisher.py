"""The diagonal of the empirical Fisher information, for EWC (Kirkpatrick et al., arXiv:1612.00796).

    F = mean over texts of (∂ log p(text) / ∂θ)²

A run keeps it in fisher.safetensors, with the hashes of the base and of the texts.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from jaxprefix.distributed import mesh as meshes
from jaxprefix.distributed import processes
from jaxprefix.errors import InputError
from jaxprefix.io.atomic import write_atomically
from jaxprefix.io.terminal import progress
from jaxprefix.models import sharding
from jaxprefix.models.adapters import Adapter
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.decoder import Frozen
from jaxprefix.models.hooks import Params
from jaxprefix.runs.base_model import BaseModel
from jaxprefix.runs.directory import read_run
from jaxprefix.tasks.encoding import Encoded
from jaxprefix.tasks.plain_texts import read_texts
from jaxprefix.train.batches import TrainBatch, buckets, collate, epoch
from jaxprefix.train.programs import CompiledByShape
from jaxprefix.train.step import summed_loss

FILE = "fisher.safetensors"
ROWS = 16  # texts per call; their gradients are computed one at a time


@dataclass(frozen=True)
class FisherTexts:
    """Encoded texts, or a file that already has the Fisher information."""

    rows: Sequence[Encoded]
    file: Path | None = None

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the ids of the texts."""
        return hashlib.sha256(repr([row.prompt + row.response for row in self.rows]).encode()).hexdigest()


def load_texts(path: Path, base: BaseModel, longest: int) -> FisherTexts:
    """Reads the texts that the user names, cut to `longest` tokens, or checks the fisher.safetensors of another run."""
    if processes.process_count() > 1:
        raise InputError("--full.regularise ewc runs in one process; leave --hosts out, or choose l2-sp")
    if path.suffix == ".safetensors":
        _check(path, base)
        return FisherTexts((), path)
    ids = [base.tokenizer.prompt_ids(row["text"])[:longest] for row in read_texts(path)]
    rows = [Encoded(row[:1], row[1:], cut=False) for row in ids if len(row) > 1]
    if not rows:
        raise InputError(f"{path}: no text has two tokens, so nothing is predicted; give longer texts")
    return FisherTexts(rows)


@dataclass(frozen=True)
class Fisher:
    """The Fisher information of each weight, and the content of its file."""

    importance: Params
    texts: str  # the hash of the texts
    content: bytes

    @property
    def description(self) -> dict[str, Any]:
        """What run.json has."""
        return {"file": FILE, "sha256": hashlib.sha256(self.content).hexdigest()}

    def write(self, directory: Path) -> None:
        write_atomically(directory / FILE, self.content)


def fisher_of_run(
    directory: Path, texts: FisherTexts, adapter: Adapter, base: BaseModel, frozen: Frozen, mesh: Mesh, quiet: bool
) -> Fisher:
    """Computes the Fisher information at the weights of the base, or reads that of the directory or of another run.

    InputError if the file of the directory, or the texts that it was computed from, have changed.
    """
    if (directory / FILE).is_file():
        kept = _read(directory / FILE, base, frozen)
        if kept.description != read_run(directory).get("fisher", kept.description):
            raise InputError(f"{directory / FILE} has changed since the run was started; restore it, or train anew")
        if texts.rows and kept.texts != texts.fingerprint:
            raise InputError(f"the texts of --full.fisher-text changed after {directory} was started; restore them")
        return kept
    if texts.file:
        return _read(texts.file, base, frozen)
    start = adapter.init(jax.random.key(0), base.config, frozen)
    importance = fisher(base.config, adapter, start, frozen, texts.rows, base.tokenizer.pad, mesh, quiet)
    flat = {".".join(_keys(path)): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(importance)}
    metadata = {"base": base.fingerprint, "texts": texts.fingerprint, "count": str(len(texts.rows))}
    return Fisher(importance, texts.fingerprint, save(flat, metadata))


def fisher(
    config: DecoderConfig,
    adapter: Adapter,
    params: Params,
    frozen: Frozen,
    rows: Sequence[Encoded],
    pad: int,
    mesh: Mesh,
    quiet: bool,
) -> Params:
    """The mean over rows of the squared gradient of Σ log p over their learnt tokens, in float32."""

    def add(total: Params, params: Params, frozen: Frozen, batch: TrainBatch) -> Params:
        def add_row(total: Params, row: TrainBatch) -> tuple[Params, None]:
            def loss(params: Params) -> jax.Array:
                alone = jax.tree.map(lambda leaf: leaf[None], row)
                return summed_loss(config, adapter, "full", params, frozen, alone, None)

            return jax.tree.map(lambda sum, slope: sum + slope**2, total, jax.grad(loss)(params)), None

        return jax.lax.scan(add_row, total, jax.tree.map(lambda leaf: leaf[0], batch))[0]

    shardings = sharding.param_shardings(mesh, params)
    step = CompiledByShape(jax.jit(meshes.with_mesh(mesh, add), donate_argnums=0, out_shardings=shardings))
    total = jax.jit(lambda: jax.tree.map(jnp.zeros_like, params), out_shardings=shardings)()
    with progress(quiet) as bar:
        task = bar.add_task("Fisher information", total=len(rows), rate="texts")
        for bucket, indices in epoch(rows, buckets(rows), ROWS, 0, 0):
            batch = collate([rows[index] for index in indices], bucket, ROWS, pad)
            total = step(total, params, frozen, jax.device_put(batch, meshes.replicated(mesh)))
            jax.block_until_ready(total)
            bar.update(task, advance=len(indices))
    return jax.tree.map(lambda leaf: leaf / len(rows), total)


def _check(path: Path, base: BaseModel) -> dict[str, str]:
    """The metadata of the file. InputError unless it is the Fisher information of this base."""
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} is not readable Fisher information: {error}; give a file of texts") from None
    if metadata.get("base") != base.fingerprint:
        raise InputError(
            f"{path} is the Fisher information of another base: its hash is {metadata.get('base')}, expected "
            f"{base.fingerprint}; give a file of texts to compute it anew"
        )
    return metadata


def _read(path: Path, base: BaseModel, frozen: Frozen) -> Fisher:
    metadata = _check(path, base)

    def leaf(file: Any, keys: Sequence[str], like: jax.Array) -> jax.Array:
        return jax.device_put(file.get_tensor(".".join(keys)), like.sharding)

    with safe_open(path, "numpy") as file:
        importance = jax.tree_util.tree_map_with_path(lambda keys, like: leaf(file, _keys(keys), like), frozen)
    return Fisher(importance, metadata.get("texts", ""), path.read_bytes())


def _keys(path: tuple) -> list[str]:
    return [part.key for part in path]
