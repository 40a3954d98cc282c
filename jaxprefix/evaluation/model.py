"""An adapted model that answers: one frozen base, and one adapter or several of a kind, chosen row by row."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxprefix import mesh as meshes
from jaxprefix.base import Base, load_weights, text_length
from jaxprefix.models import decode, score
from jaxprefix.models.adapters import Adapter
from jaxprefix.models.decoder import Batch
from jaxprefix.saved import Saved, read_saved, together


@dataclass(frozen=True)
class Model:
    """An adapted model on a mesh, ready to answer; of `several` adapters each question names its own."""

    base: Base
    adapter: Adapter
    params: Any  # with a leading dimension, where there are several
    frozen: Any
    mesh: Mesh
    max_length: int
    chat: bool
    several: bool = False

    @cached_property
    def generate(self) -> Any:
        config, ends = self.base.config, self.base.tokenizer.eos

        @partial(jax.jit, static_argnums=4)
        def run(params: Any, frozen: Any, batch: Batch, rows: Any, length: int) -> Any:
            weights, hooks = self.adapter.bind(params, frozen, rows=rows)
            return decode.generate(config, weights, batch, hooks, length, ends)

        return run

    @cached_property
    def choose(self) -> Any:
        @jax.jit
        def run(params: Any, frozen: Any, batch: Batch, rows: Any, choices: Any, weights: Any) -> Any:
            adapted, hooks = self.adapter.bind(params, frozen, rows=rows)
            return score.choice_logprobs(self.base.config, adapted, batch, hooks, choices, weights)

        return run

    def place(self, leaf: np.ndarray, dim: int = 0) -> jax.Array:
        return jax.device_put(leaf, meshes.over_data(self.mesh, dim))


def open_model(directories: Sequence[Path], mesh: str | None, batch: int) -> tuple[Model, list[Saved]]:
    """The runs' base and their last adapters on a mesh, for batches of `batch` rows, and what else the runs say.

    ValueError where several runs cannot share a batch, or the mesh cannot share one among its devices.
    """
    made = meshes.make(mesh)
    if batch % made.shape["data"]:
        devices = made.shape["data"]
        raise ValueError(
            f"--batch {batch} cannot be divided among {devices} data devices; choose a multiple of {devices}"
        )
    first = read_saved(directories[0], made)
    runs = [first, *(read_saved(directory, made, first.base) for directory in directories[1:])]
    adapter, params = together(runs)
    base, config = first.base, first.config
    longest = text_length(base.config, adapter, config.max_length)
    frozen = load_weights(base, made, config.dtype)
    return Model(base, adapter, params, frozen, made, longest, config.chat, several=len(runs) > 1), runs
