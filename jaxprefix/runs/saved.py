"""Trained runs: loads the adapter of a run directory with its base, and saves an adapter as a new run."""

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxprefix._version import __version__
from jaxprefix.distributed import mesh as meshes
from jaxprefix.distributed import processes
from jaxprefix.errors import InputError
from jaxprefix.io.atomic import new_directory
from jaxprefix.io.messages import truncate
from jaxprefix.models import adapter_init, sharding
from jaxprefix.models.adapters import Adapter, NoAdapter, inference_form
from jaxprefix.models.hooks import Frozen, Params
from jaxprefix.runs.base_model import BaseModel, parameter_counts
from jaxprefix.runs.checkpoint import Checkpoints
from jaxprefix.runs.config import RunConfig
from jaxprefix.runs.directory import RUN_FILE, check_path, read_run, write_run
from jaxprefix.runs.loaded import Loaded
from jaxprefix.text.chat_template import parse_date

PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint")


@dataclass(frozen=True)
class TrainedRun:
    """The configuration, the base and the last adapter of a run. The weights of the base are not loaded."""

    config: RunConfig
    base: BaseModel
    params: Params
    step: int
    run_json: dict[str, Any]  # the contents of run.json


def with_chat_date(directory: Path, config: RunConfig, base: BaseModel) -> tuple[RunConfig, BaseModel]:
    """Both with the date that the run's chat template writes: that of an existing run, the given one, or today's.

    run.json keeps it, so that a resumed run and a later evaluation have the same prompts. None if nothing asks for it.
    """
    day = config.chat_date
    if day is None and config.chat:
        if (directory / RUN_FILE).is_file():
            day = read_run(directory)["config"].get("chat_date")
        elif base.tokenizer.tells_date:
            day = str(date.today())
        ordinal = processes.broadcast_from_main(parse_date(day).toordinal() if day else 0)
        day = str(date.fromordinal(ordinal)) if ordinal else None
    return replace(config, chat_date=day), base.with_chat_date(day)


def write_run_json(directory: Path, config: RunConfig, base: BaseModel, progress: dict[str, Any]) -> None:
    """Writes run.json. `progress` has "source" (languages), "rows" (their hash), "steps" and "finished".

    "model_path" is the absolute path of a base that was given as a directory.
    """
    trainable, total = parameter_counts(base.config, config.adapter)
    versions = {"jaxprefix": __version__} | {name: importlib.metadata.version(name) for name in PACKAGES}
    values = {"config": config.as_json(), "model_path": base.path, "base": base.fingerprint, **progress}
    values |= {"trainable_parameters": trainable, "total_parameters": total, "versions": versions}
    write_run(directory, values)


def load_run(
    directory: Path, mesh: Mesh | None = None, base: BaseModel | None = None, loaded: Loaded | None = None
) -> TrainedRun:
    """The run in `directory` with its adapter sharded over `mesh`, or in numpy arrays if `mesh` is None.

    `base` is opened from the run's configuration if it is None, or is that of `loaded`.

    Raises:
        InputError: the directory is not a run, it has no checkpoint, or it was trained on another base.
    """
    run_json = read_run(directory / RUN_FILE)
    config = RunConfig.from_json(run_json["config"])
    base = base or (loaded or Loaded()).base(config.model, run_json.get("model_path"))
    base = base.with_chat_date(config.chat_date)
    if base.fingerprint != run_json["base"]:
        raise InputError(
            f"{base.directory} is not the base that {directory} was trained on, "
            f"{truncate(config.model or 'the embedded one')}: its hash is {base.fingerprint}, "
            f"expected {truncate(run_json['base'])}; load that model"
        )
    if isinstance(config.adapter, NoAdapter):
        return TrainedRun(config, base, {}, 0, run_json)
    target = meshes.make_mesh("1x1") if mesh is None else mesh
    like = adapter_init.abstract_params(config.adapter, base.config)
    like = jax.tree.map(
        lambda leaf, placement: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=placement),
        like,
        sharding.param_shardings(target, like),
    )
    checkpoints = Checkpoints(directory)
    try:
        params, step = checkpoints.restore_adapter_and_step(like)
    finally:
        checkpoints.close()
    return TrainedRun(config, base, jax.device_get(params) if mesh is None else params, step, run_json)


def save_run(directory: Path, config: RunConfig, base: BaseModel, params: Params, source: str) -> None:
    """Saves an adapter as a new run, which can be evaluated, used for generation and exported.

    `source` is the language that it was trained on. InputError if the directory is not empty.
    """
    like = adapter_init.abstract_params(config.adapter, base.config)
    assert jax.tree.structure(like) == jax.tree.structure(params)
    assert jax.tree.all(jax.tree.map(lambda expected, leaf: expected.shape == leaf.shape, like, params))
    check_path(directory)
    with new_directory(directory) as unfinished:
        checkpoints = Checkpoints(unfinished)
        checkpoints.save_adapter(0, params)
        checkpoints.close()
        write_run_json(unfinished, config, base, {"source": source, "rows": None, "steps": 0, "finished": True})


def stack_adapters(runs: Sequence[TrainedRun], frozen: Frozen) -> tuple[Adapter, Params]:
    """The adapter that the runs share, and their parameters. Those of several runs are stacked in this order.

    InputError if one batch cannot use them together: the methods, shapes, --chat, --chat-date, --dtype or --max-length
    differ.
    """
    if len(runs) == 1:
        return runs[0].config.adapter, runs[0].params
    first = runs[0]
    for run in runs[1:]:
        for flag, one, other in (
            ("--chat", first.config.chat, run.config.chat),
            ("--chat-date", first.config.chat_date, run.config.chat_date),
            ("--dtype", first.config.dtype, run.config.dtype),
            ("--max-length", first.config.max_length, run.config.max_length),
        ):
            if one != other:
                raise InputError(
                    f"runs of one batch must have the same {flag}: found {one} and {other}; use them separately"
                )
    served = [inference_form(run.config.adapter, run.base.config, run.params, frozen) for run in runs]
    for adapter, _ in served[1:]:
        if adapter != served[0][0]:
            raise InputError(
                f"runs of one batch must have the same kind of adapter: found {served[0][0]} and {adapter}; "
                "use them separately"
            )
    adapter, params = served[0][0], jax.tree.map(lambda *leaves: jnp.stack(leaves), *(params for _, params in served))
    config = first.base.config
    # Raises now if rows of a batch cannot use different adapters of this kind.
    jax.eval_shape(
        lambda params, frozen: adapter.bind(config, params, frozen, adapter_ids=jnp.zeros(1, jnp.int32)),
        params,
        frozen,
    )
    return adapter, params
