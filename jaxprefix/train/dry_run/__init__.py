"""--dry-run: compiles the step of a run for a mesh that need not exist, and estimates its needs per device.

Only config.json is read. The memory is an estimate of the compiler for CPUs or, for a TPU if libtpu is installed (`pip
install 'jaxprefix[tpu]'`), the figure of the TPU's compiler. Matrix products and collectives are counted in the
partitioned program, before any pass that is specific to CPUs.
"""

import json
import math
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import Mesh
from jaxtyping import PyTree

from jaxprefix.distributed import mesh as meshes
from jaxprefix.errors import InputError
from jaxprefix.io.atomic import check_new_file, disk_errors, write_atomically
from jaxprefix.io.hub import model_directory
from jaxprefix.models import sharding
from jaxprefix.models.config import DecoderConfig
from jaxprefix.runs.base_model import EMBEDDED, frozen_shapes, read_config
from jaxprefix.runs.config import RunConfig
from jaxprefix.runs.directory import PLAN_FILE
from jaxprefix.train.batches import TrainBatch, check_batch, check_length
from jaxprefix.train.dry_run.chips import CHIPS, topology_mesh, why_estimated
from jaxprefix.train.dry_run.estimate import MORE, Bytes, Estimate, Growth
from jaxprefix.train.dry_run.hlo import HloProgram
from jaxprefix.train.dry_run.limits import weight_reads
from jaxprefix.train.programs import TrainPrograms, abstract

# Otherwise XLA for CPUs keeps float32 copies of all bfloat16 weights outside the loop, unlike accelerators.
COMPILER_OPTIONS: dict[str, str | bool] = {"xla_disable_hlo_passes": "while-loop-invariant-code-motion"}


@dataclass(frozen=True)
class StepNeeds:
    """What a micro-batch of one step needs on one device."""

    tokens: int
    temporary: int  # bytes
    flops: float  # of its matrix products
    weight_reads: float  # bytes


class _Compiled(NamedTuple):
    """The step, compiled for CPUs. All bytes are of one device."""

    program: HloProgram
    temporary: int  # bytes
    kept: tuple[int, int, int]  # bytes of weights, adapter and optimizer state
    weight_reads: float  # bytes in a micro-batch


def dry_run(config: RunConfig, chip: str | None, output: Path | None) -> Estimate:
    """Prints the estimate, and writes plan.json to `output` if given. It loads no weights and needs no accelerator.

    Raises:
        InputError: the settings, config.json or the mesh are invalid, or plan.json exists already.
    """
    began = time.monotonic()
    if config.method == "none":
        raise InputError("--dry-run --method none trains nothing; choose a method")
    if output:
        check_new_file(output / PLAN_FILE)
    dtype = "bfloat16" if config.dtype == "auto" else config.dtype  # as on an accelerator
    config = replace(config, mesh=config.mesh or "1x1", dtype=dtype)
    directory = EMBEDDED if config.model is None else model_directory(config.model, ("config.json",))
    sizes = read_config(directory)
    mesh = meshes.make_mesh(config.mesh)
    check_batch(config, mesh)
    check_length(config, sizes)
    estimate = _estimate(config, sizes, mesh, chip, began)
    print(estimate)
    if output:
        with disk_errors(output):
            write_atomically(output / PLAN_FILE, (json.dumps(estimate.as_json(), indent=2) + "\n").encode())
    return estimate


def _estimate(config: RunConfig, sizes: DecoderConfig, mesh: Mesh, chip: str | None, began: float) -> Estimate:
    compiled = _compiled(config, sizes, mesh)
    more_rows = _compiled(replace(config, batch=MORE * config.batch), sizes, mesh).temporary
    longer = _compiled(replace(config, max_length=MORE * config.max_length), sizes, mesh).temporary
    temporary = compiled.temporary
    tokens = config.batch // config.accumulate // mesh.shape["data"] * config.max_length
    residuals = 2 * sizes.layers * sizes.hidden_size  # bytes per token between the layers, in 16 bits
    growth = Growth.fit(tokens, config.max_length, temporary, more_rows, longer, residuals)
    estimated = why_estimated(CHIPS[chip], mesh.size) if chip else "no --chip is given"
    if chip and not estimated:
        topology = topology_mesh(CHIPS[chip], config.mesh or "1x1")
        on_chip = _temporary(_programs(config, sizes, topology).lower(full_batch(config)).compile())
        growth, temporary = growth.times(on_chip / temporary), on_chip
    return Estimate(
        config=config,
        sizes=sizes,
        bytes=Bytes(*compiled.kept, temporary),
        growth=growth,
        flops=compiled.program.flops(),
        weight_reads=config.accumulate * compiled.weight_reads,
        collectives=compiled.program.collective_bytes(mesh.size),
        topology=CHIPS[chip].topology(mesh.size) if chip and not estimated else None,
        estimated=estimated,
        seconds=time.monotonic() - began,
    )


def needs(config: RunConfig, sizes: DecoderConfig) -> StepNeeds:
    """What one step needs on one device, with one compilation."""
    mesh = meshes.make_mesh("1x1")
    compiled = _compiled(config, sizes, mesh)
    tokens = config.batch // config.accumulate * config.max_length
    flops = compiled.program.flops() / config.accumulate
    return StepNeeds(tokens, compiled.temporary, flops, compiled.weight_reads)


def _programs(config: RunConfig, sizes: DecoderConfig, mesh: Mesh) -> TrainPrograms:
    """The programs of the run, for abstract weights with the dtypes of an accelerator."""
    shapes = frozen_shapes(sizes, config.dtype, on_cpu=False)
    frozen = abstract(shapes, sharding.param_shardings(mesh, shapes))
    return TrainPrograms(config, sizes, mesh, frozen, lambda _, length: [0] * length, steps=1000)


def full_batch(config: RunConfig) -> TrainBatch:
    """An abstract batch in which every token is learnt."""
    shape = (config.accumulate, config.batch // config.accumulate, config.max_length)

    def make() -> TrainBatch:
        ids = jnp.zeros(shape, jnp.int32)
        return TrainBatch(ids, ids[..., 0], ids, ids, loss_mask=jnp.zeros(shape))

    return jax.eval_shape(make)


def _device_bytes(tree: PyTree) -> int:
    """The bytes of the tree on one device."""
    return sum(leaf.dtype.itemsize * math.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in jax.tree.leaves(tree))


def _compiled(config: RunConfig, sizes: DecoderConfig, mesh: Mesh) -> _Compiled:
    programs = _programs(config, sizes, mesh)
    compiled, program = partitioned(programs.lower(full_batch(config)), mesh)
    frozen, state = programs.frozen, programs.state
    kept = _device_bytes(frozen), _device_bytes(state.params), _device_bytes(state.optimizer)
    reads = weight_reads(config, sizes, mesh, frozen, state)
    return _Compiled(program, _temporary(compiled), kept, reads)


def partitioned(lowered: jax.stages.Lowered, mesh: Mesh) -> tuple[jax.stages.Compiled, HloProgram]:
    """The program compiled for CPUs, and the HLO after partitioning."""
    if mesh.size == 1:
        return lowered.compile(COMPILER_OPTIONS), HloProgram.parse(lowered.as_text("hlo"))
    with _uncached(), tempfile.TemporaryDirectory() as dump:
        compiled = lowered.compile(
            COMPILER_OPTIONS | {"xla_dump_to": dump, "xla_dump_hlo_pass_re": "spmd-partitioning"}
        )
        text = next(Path(dump).glob("*after_spmd-partitioning*")).read_text(encoding="utf-8")
    return compiled, HloProgram.parse(text)


def _temporary(compiled: jax.stages.Compiled) -> int:
    memory: Any = compiled.memory_analysis()
    return memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes


@contextmanager
def _uncached() -> Iterator[None]:
    """Turns the compilation cache off: a cached program is not partitioned again, so nothing is dumped."""
    before = jax.config.jax_enable_compilation_cache  # type: ignore[attr-defined]
    _enable_cache(False)
    try:
        yield
    finally:
        _enable_cache(before)


def _enable_cache(enabled: bool) -> None:
    jax.config.update("jax_enable_compilation_cache", enabled)
    compilation_cache.reset_cache()  # JAX reads the option again only after this
