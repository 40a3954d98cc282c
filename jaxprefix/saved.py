"""The adapter that a run directory keeps: read back onto its base, or written as a run of its own."""

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

import jaxprefix
from jaxprefix import mesh as meshes
from jaxprefix.base import Base, counts, open_base
from jaxprefix.checkpoint import Checkpoints
from jaxprefix.models import start
from jaxprefix.models.adapters import NoAdapter
from jaxprefix.run import RUN_FILE, RunConfig, read_run, write_run

PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint")


@dataclass(frozen=True)
class Saved:
    """A run's configuration, its base and its last adapter; no weight of the base is read."""

    config: RunConfig
    base: Base
    params: Any
    step: int
    described: dict[str, Any]  # run.json


def describe(directory: Path, config: RunConfig, base: Base, about: dict[str, Any]) -> None:
    """Writes run.json; `about` has its "source" (language), "rows" (their hash), "steps" and "finished"."""
    own, total = counts(base.config, config.adapter)
    versions = {"jaxprefix": jaxprefix.__version__} | {name: importlib.metadata.version(name) for name in PACKAGES}
    values = {"config": config.as_json(), "base": base.fingerprint, **about}
    values |= {"trainable_parameters": own, "total_parameters": total, "versions": versions}
    write_run(directory, values)


def read_saved(directory: Path, mesh: Mesh | None = None) -> Saved:
    """The run in `directory`, its adapter placed on `mesh`; without one, as arrays of numpy.

    Raises:
        ValueError: no run there, no checkpoint yet, or a base that is not the one that it was trained on.
    """
    described = read_run(directory / RUN_FILE)
    config = RunConfig.from_json(described["config"])
    base = open_base(config.model)
    if base.fingerprint != described["base"]:
        raise ValueError(
            f"{base.directory} is not the base that {directory} was trained on: its hash is {base.fingerprint}, "
            f"the run's {described['base']}; give back that model, or train anew"
        )
    if isinstance(config.adapter, NoAdapter):
        return Saved(config, base, {}, 0, described)
    place = meshes.make("1x1") if mesh is None else mesh
    like = start.abstract(config.adapter, base.config)
    like = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        like,
        meshes.shardings(place, like),
    )
    checkpoints = Checkpoints(directory)
    try:
        params, step = checkpoints.restore_adapter(like), checkpoints.latest or 0
    finally:
        checkpoints.close()
    return Saved(config, base, jax.device_get(params) if mesh is None else params, step, described)


def write_saved(directory: Path, config: RunConfig, base: Base, params: Any, source: str) -> None:
    """A new run directory that holds this adapter, ready to be evaluated, asked and exported.

    `source` is the language that it was trained on. ValueError where the directory holds anything already.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ValueError(f"{directory} is there already; choose a new directory")
    like = start.abstract(config.adapter, base.config)
    assert jax.tree.structure(like) == jax.tree.structure(params)
    assert jax.tree.all(jax.tree.map(lambda leaf, own: leaf.shape == own.shape, like, params))
    checkpoints = Checkpoints(directory)
    checkpoints.save_adapter(0, params)
    checkpoints.close()
    describe(directory, config, base, {"source": source, "rows": None, "steps": 0, "finished": True})
