"""An adapted model that answers: one frozen base, and one adapter or several of a kind, chosen row by row."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxprefix.distributed import mesh as meshes
from jaxprefix.errors import InputError
from jaxprefix.models import decode, scoring
from jaxprefix.models.adapters import Adapter, NoAdapter
from jaxprefix.models.decode import DecodeState, PrefillBatch
from jaxprefix.models.decoder import Batch
from jaxprefix.models.sampling import Sampling
from jaxprefix.runs.base_model import BaseModel, load_weights, max_text_tokens, open_base
from jaxprefix.runs.saved import TrainedRun, load_run, stack_adapters


@dataclass(frozen=True)
class Model:
    """An adapted model on a mesh, ready to answer; of `several` adapters each question names its own."""

    base: BaseModel
    adapter: Adapter
    params: Any  # with a leading dimension, where there are several
    frozen: Any
    mesh: Mesh
    max_length: int
    chat: bool
    multi_adapter: bool = False

    @cached_property
    def init_state(self) -> Any:
        """(params, frozen, prompts, adapters of the prompts [R], length) -> Answers without any prompt."""

        @partial(jax.jit, static_argnums=4)
        @partial(meshes.with_mesh, self.mesh)
        def run(params: Any, frozen: Any, prompts: PrefillBatch, entering: Any, length: int) -> DecodeState:
            weights, hooks = self.adapter.bind(params, frozen, adapter_ids=entering)
            return self._pinned(decode.init_state(self.base.config, weights, prompts, hooks, length))

        return run

    @cached_property
    def step(self) -> Any:
        """(params, frozen, answers, prompts, adapters of the prompts [R] and of all rows [B], sampling, stopped [B],
        few, steps) -> answers: ends the stopped rows, lets the prompts enter and goes on, as decode.advance says.
        """
        config, ends = self.base.config, self.base.tokenizer.eos

        @partial(jax.jit, static_argnums=6, donate_argnums=2)
        @partial(meshes.with_mesh, self.mesh)
        def run(
            params: Any,
            frozen: Any,
            answers: DecodeState,
            prompts: PrefillBatch,
            entering: Any,
            rows: Any,
            sampling: Sampling,
            stopped: Any,
            few: Any,
            steps: Any,
        ) -> DecodeState:
            def enter(answers: DecodeState) -> DecodeState:
                weights, hooks = self.adapter.bind(params, frozen, adapter_ids=entering)
                return decode.insert(config, weights, answers, prompts, hooks, ends, sampling)

            answers = answers.replace(done=answers.done | stopped)  # type: ignore[attr-defined]
            answers = jax.lax.cond(jnp.any(prompts.source >= 0), enter, lambda answers: answers, answers)
            weights, hooks = self.adapter.bind(params, frozen, adapter_ids=rows)
            return self._pinned(decode.decode_steps(config, weights, answers, hooks, ends, sampling, few, steps))

        return run

    @cached_property
    def score_choices(self) -> Any:
        """(params, frozen, batch, adapters of the rows, choices [C, B, M], lengths [C, B]) -> as score.choices."""

        @jax.jit
        @partial(meshes.with_mesh, self.mesh)
        def run(params: Any, frozen: Any, batch: Batch, rows: Any, choices: Any, lengths: Any) -> Any:
            weights, hooks = self.adapter.bind(params, frozen, adapter_ids=rows)
            return scoring.choices(self.base.config, weights, batch, hooks, choices, lengths)

        return run

    @property
    def compilations(self) -> int:
        """How many shapes of answers and choices were compiled so far."""
        return self.step._cache_size() + self.score_choices._cache_size()

    def shard(self, leaf: np.ndarray, dim: int = 0) -> jax.Array:
        return jax.device_put(leaf, meshes.batch_sharding(self.mesh, dim))

    def _pinned(self, answers: DecodeState) -> DecodeState:
        """Where the answers lie between two turns: rows over `data`, and the cache's heads over `model` if they divide.

        Left to the compiler, they could lie elsewhere after a turn than before it, and the next would compile again.
        """
        whole = self.base.config.kv_heads % self.mesh.shape["model"] == 0

        def pin(leaf: Any) -> Any:
            axes = {0: (), 1: ("data",), 2: ("data",), 3: (None, "data"), 5: (None, "data", "model")}[leaf.ndim]
            spec = P(*axes) if whole or leaf.ndim < 5 else P(None, "data")
            return jax.lax.with_sharding_constraint(leaf, NamedSharding(self.mesh, spec))

        return jax.tree.map(pin, answers)


def open_model(
    directories: Sequence[Path], mesh: str | None, batch: int, max_length: int | None = None
) -> tuple[Model, list[TrainedRun]]:
    """The runs' base and their last adapters on a mesh, for batches of `batch` rows, and what else the runs say.

    `max_length` is of prompt and answer, in tokens; None is what the runs were trained with. InputError where several
    runs cannot share a batch, or the mesh cannot share one among its devices.
    """
    made = _mesh(mesh, batch)
    first = load_run(directories[0], made)
    runs = [first, *(load_run(directory, made, first.base) for directory in directories[1:])]
    adapter, params = stack_adapters(runs)
    base, config = first.base, first.config
    longest = max_text_tokens(base.config, adapter, max_length or config.max_length)
    frozen = load_weights(base, made, config.dtype)
    return Model(base, adapter, params, frozen, made, longest, config.chat, multi_adapter=len(runs) > 1), runs


def open_frozen(name: str, mesh: str | None, batch: int, max_length: int) -> Model:
    """The base model that `name` names as it is; otherwise as `open_model`."""
    made, base = _mesh(mesh, batch), open_base(name)
    longest = max_text_tokens(base.config, NoAdapter(), max_length)
    return Model(base, NoAdapter(), {}, load_weights(base, made, "auto"), made, longest, chat=False)


def _mesh(text: str | None, batch: int) -> Mesh:
    made = meshes.make_mesh(text)
    if batch % (devices := made.shape["data"]):
        raise InputError(
            f"--batch {batch} cannot be divided among {devices} data devices; choose a multiple of {devices}"
        )
    return made
