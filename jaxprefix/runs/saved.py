"""The adapter that a run directory keeps: read back onto its base, or written as a run of its own."""

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxprefix._version import __version__
from jaxprefix.distributed import mesh as meshes
from jaxprefix.errors import InputError
from jaxprefix.io.atomic import new_directory
from jaxprefix.io.messages import truncate
from jaxprefix.models import adapter_init, decoder, sharding
from jaxprefix.models.adapters import Adapter, LlamaAdapter, NoAdapter, PrefixTuning, SoftPrompt, Sum
from jaxprefix.models.config import layer_range
from jaxprefix.runs.base_model import BaseModel, open_base, parameter_counts
from jaxprefix.runs.checkpoint import Checkpoints
from jaxprefix.runs.config import RunConfig
from jaxprefix.runs.directory import RUN_FILE, read_run, write_run

PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint")


@dataclass(frozen=True)
class TrainedRun:
    """A run's configuration, its base and its last adapter; no weight of the base is read."""

    config: RunConfig
    base: BaseModel
    params: Any
    step: int
    run_json: dict[str, Any]  # run.json


def write_run_json(directory: Path, config: RunConfig, base: BaseModel, about: dict[str, Any]) -> None:
    """Writes run.json; `about` has its "source" (language), "rows" (their hash), "steps" and "finished"."""
    own, total = parameter_counts(base.config, config.adapter)
    versions = {"jaxprefix": __version__} | {name: importlib.metadata.version(name) for name in PACKAGES}
    values = {"config": config.as_json(), "base": base.fingerprint, **about}
    values |= {"trainable_parameters": own, "total_parameters": total, "versions": versions}
    write_run(directory, values)


def load_run(directory: Path, mesh: Mesh | None = None, base: BaseModel | None = None) -> TrainedRun:
    """The run in `directory` on `base` (None: the one that it names), its adapter placed on `mesh` (None: numpy).

    Raises:
        InputError: no run there, no checkpoint yet, or a base that is not the one that it was trained on.
    """
    described = read_run(directory / RUN_FILE)
    config = RunConfig.from_json(described["config"])
    base = base or open_base(config.model)
    if base.fingerprint != described["base"]:
        raise InputError(
            f"{base.directory} is not the base that {directory} was trained on, "
            f"{truncate(config.model or 'the embedded one')}: its hash is {base.fingerprint}, "
            f"expected {truncate(described['base'])}; load that model"
        )
    if isinstance(config.adapter, NoAdapter):
        return TrainedRun(config, base, {}, 0, described)
    place = meshes.make_mesh("1x1") if mesh is None else mesh
    like = adapter_init.abstract_params(config.adapter, base.config)
    like = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        like,
        sharding.param_shardings(place, like),
    )
    checkpoints = Checkpoints(directory)
    try:
        params, step = checkpoints.restore_adapter_and_step(like)
    finally:
        checkpoints.close()
    return TrainedRun(config, base, jax.device_get(params) if mesh is None else params, step, described)


def save_run(directory: Path, config: RunConfig, base: BaseModel, params: Any, source: str) -> None:
    """A new run directory that holds this adapter, ready to be evaluated, asked and exported.

    `source` is the language that it was trained on. InputError where the directory holds anything already.
    """
    like = adapter_init.abstract_params(config.adapter, base.config)
    assert jax.tree.structure(like) == jax.tree.structure(params)
    assert jax.tree.all(jax.tree.map(lambda leaf, own: leaf.shape == own.shape, like, params))
    with new_directory(directory) as place:
        checkpoints = Checkpoints(place)
        checkpoints.save_adapter(0, params)
        checkpoints.close()
        write_run_json(place, config, base, {"source": source, "rows": None, "steps": 0, "finished": True})


def stack_adapters(runs: Sequence[TrainedRun]) -> tuple[Adapter, Any]:
    """The adapter of a run; of several, the one kind that they share and their parameters, stacked in this order.

    InputError where they cannot stand in one batch: another method or shape, chat template or type of weights.
    """
    if len(runs) == 1:
        return runs[0].config.adapter, runs[0].params
    first = runs[0]
    for run in runs[1:]:
        for what, one, other in (
            ("--chat", first.config.chat, run.config.chat),
            ("--dtype", first.config.dtype, run.config.dtype),
            ("--max-length", first.config.max_length, run.config.max_length),
        ):
            if one != other:
                raise InputError(f"runs of one batch must share their {what}: found {one} and {other}; take them apart")
    served = [_served(run.config.adapter, run.params, run.base.config.layers) for run in runs]
    for adapter, _ in served[1:]:
        if adapter != served[0][0]:
            raise InputError(
                f"runs of one batch must have one kind of adapter: found {served[0][0]} and {adapter}; take them apart"
            )
    adapter, params = served[0][0], jax.tree.map(lambda *leaves: jnp.stack(leaves), *(own for _, own in served))
    # Says at once whether rows of a batch can have adapters of this kind.
    jax.eval_shape(
        lambda params, frozen: adapter.bind(params, frozen, adapter_ids=jnp.zeros(1, jnp.int32)),
        params,
        decoder.shapes(first.base.config),
    )
    return adapter, params


def _served(adapter: Adapter, params: Any, count: int) -> tuple[Adapter, Any]:
    """The same without what matters in training alone: how the slots began, and an MLP that makes them."""
    if isinstance(adapter, Sum):
        parts = {name: _served(member, params[name], count) for name, member in adapter.members}
        members = tuple((name, member) for name, (member, _) in parts.items())
        return Sum(members), {name: own for name, (_, own) in parts.items()}
    if isinstance(adapter, PrefixTuning):
        adapter, params = adapter.fold(params)
    if isinstance(adapter, PrefixTuning | LlamaAdapter):
        first, last = layer_range(adapter.layers, count)
        adapter = replace(adapter, layers=f"{first}:{last}")
    if isinstance(adapter, PrefixTuning | LlamaAdapter | SoftPrompt):
        adapter = replace(adapter, start="random", std=0.0)
    return adapter, params
