"""--dry-run: the run's own step compiled for a mesh that need not be there, and what it asks of each device.

Only config.json is read. Memory is what the compiler for CPUs estimates or, for a TPU where libtpu is installed (`pip
install 'jaxprefix[tpu]'`), what its own compiler says. Products and collectives are counted in the program as it is
partitioned, before anything is done to it that a CPU needs.
"""

import json
import math
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import Mesh

from jaxprefix.distributed import mesh as meshes
from jaxprefix.errors import InputError
from jaxprefix.io.atomic import check_new_file, disk_errors, write_atomically
from jaxprefix.io.hub import model_directory
from jaxprefix.models import sharding
from jaxprefix.models.config import DecoderConfig
from jaxprefix.runs.base_model import EMBEDDED, frozen_shapes
from jaxprefix.runs.config import RunConfig
from jaxprefix.runs.directory import PLAN_FILE
from jaxprefix.train.batches import TrainBatch, check_batch, check_length
from jaxprefix.train.dry_run.chips import CHIPS, topology_mesh, why_estimated
from jaxprefix.train.dry_run.estimate import MORE, Bytes, Estimate, Growth
from jaxprefix.train.dry_run.hlo import HloProgram
from jaxprefix.train.programs import TrainPrograms, abstract

# XLA for CPUs would keep float32 copies of all bfloat16 weights outside of the loop, which no accelerator does.
NOT_ON_CPU = {"xla_disable_hlo_passes": "while-loop-invariant-code-motion"}


def dry_run(config: RunConfig, chip: str | None, output: Path | None) -> Estimate:
    """Compiles and prints; writes plan.json into `output`, if given. Loads no weight and needs no accelerator.

    Raises:
        InputError: settings, a model's config.json or a mesh that cannot be; a plan.json that is there already.
    """
    began = time.monotonic()
    if config.method == "none":
        raise InputError("--dry-run --method none trains nothing; choose a method")
    if output:
        check_new_file(output / PLAN_FILE)
    dtype = "bfloat16" if config.dtype == "auto" else config.dtype  # as an accelerator would take it
    config = replace(config, mesh=config.mesh or "1x1", dtype=dtype)
    directory = EMBEDDED if config.model is None else model_directory(config.model, ("config.json",))
    sizes = DecoderConfig.read(directory)
    mesh = meshes.make_mesh(config.mesh)
    check_batch(config, mesh)
    check_length(config, sizes)
    needs = _needs(config, sizes, mesh, chip, began)
    print(needs)
    if output:
        with disk_errors(output):
            write_atomically(output / PLAN_FILE, (json.dumps(needs.as_json(), indent=2) + "\n").encode())
    return needs


def _needs(config: RunConfig, sizes: DecoderConfig, mesh: Mesh, chip: str | None, began: float) -> Estimate:
    step, program, held = _compiled(config, sizes, mesh)
    more_rows, _, _ = _compiled(replace(config, batch=MORE * config.batch), sizes, mesh)
    longer, _, _ = _compiled(replace(config, max_length=MORE * config.max_length), sizes, mesh)
    tokens = config.batch // config.accumulate // mesh.shape["data"] * config.max_length
    kept = 2 * sizes.layers * sizes.hidden_size  # of a token, between the layers, in 16 bits
    growth = Growth.of(tokens, config.max_length, step, more_rows, longer, kept)
    estimated = why_estimated(CHIPS[chip], mesh.size) if chip else "no --chip is given"
    if chip and not estimated:
        topology = topology_mesh(CHIPS[chip], config.mesh or "1x1")
        real = _temporary(_programs(config, sizes, topology).lower(full_batch(config)).compile())
        growth, step = growth.times(real / step), real
    return Estimate(
        config=config,
        sizes=sizes,
        bytes=Bytes(*held, step),
        growth=growth,
        flops=program.flops(),
        collectives=program.collective_bytes(mesh.size),
        topology=CHIPS[chip].topology(mesh.size) if chip and not estimated else None,
        estimated=estimated,
        seconds=time.monotonic() - began,
    )


def _programs(config: RunConfig, sizes: DecoderConfig, mesh: Mesh) -> TrainPrograms:
    """The run's own, of abstract weights in the types that an accelerator has."""
    shapes = frozen_shapes(sizes, config.dtype, on_cpu=False)
    frozen = abstract(shapes, sharding.param_shardings(mesh, shapes))
    return TrainPrograms(config, sizes, mesh, frozen, lambda _, length: [0] * length, steps=1000)


def full_batch(config: RunConfig) -> TrainBatch:
    """Abstract, as if every token were learned."""
    shape = (config.accumulate, config.batch // config.accumulate, config.max_length)

    def make() -> TrainBatch:
        ids = jnp.zeros(shape, jnp.int32)
        return TrainBatch(ids, ids, ids, ids, loss_mask=jnp.zeros(shape))

    return jax.eval_shape(make)


def _held(tree: Any) -> int:
    """Bytes of one device."""
    return sum(leaf.dtype.itemsize * math.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in jax.tree.leaves(tree))


def _compiled(config: RunConfig, sizes: DecoderConfig, mesh: Mesh) -> tuple[int, HloProgram, tuple[int, int, int]]:
    """Temporary bytes of a device, the partitioned program, and the bytes of weights, adapter and optimizer state."""
    programs = _programs(config, sizes, mesh)
    compiled, program = partitioned(programs.lower(full_batch(config)), mesh)
    state = programs.state
    return _temporary(compiled), program, (_held(programs.frozen), _held(state.params), _held(state.optimizer))


def partitioned(lowered: Any, mesh: Mesh) -> tuple[Any, HloProgram]:
    """The program compiled for CPUs, and as it is behind the partitioner."""
    if mesh.size == 1:
        return lowered.compile(NOT_ON_CPU), HloProgram.parse(lowered.as_text("hlo"))
    with _uncached(), tempfile.TemporaryDirectory() as place:
        compiled = lowered.compile(NOT_ON_CPU | {"xla_dump_to": place, "xla_dump_hlo_pass_re": "spmd-partitioning"})
        text = next(Path(place).glob("*after_spmd-partitioning*")).read_text(encoding="utf-8")
    return compiled, HloProgram.parse(text)


def _temporary(compiled: Any) -> int:
    found = compiled.memory_analysis()
    return found.temp_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes


@contextmanager
def _uncached() -> Iterator[None]:
    """A program from the cache would not tell how it was partitioned."""
    before = jax.config.jax_enable_compilation_cache  # type: ignore[attr-defined]
    _enable_cache(False)
    try:
        yield
    finally:
        _enable_cache(before)


def _enable_cache(enabled: bool) -> None:
    jax.config.update("jax_enable_compilation_cache", enabled)
    compilation_cache.reset_cache()  # JAX reads the option once, until this
