"""The step compiles while the weights load: either can take minutes, and neither needs the other."""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
from jax.sharding import Mesh

from jaxprefix import mesh as meshes
from jaxprefix.base import Base, abstract_weights, load_weights, start_tokens
from jaxprefix.models.decoder import Frozen
from jaxprefix.run import RunConfig
from jaxprefix.train import placed
from jaxprefix.train.plan import Plan


def load_and_compile(
    config: RunConfig, base: Base, mesh: Mesh, plan: Plan, start: int
) -> tuple[Frozen, placed.Programs]:
    """The weights; and the run's programs, compiled for the batch that follows step `start`.

    What is wrong with the weights is raised before what the compiler says, which is not begun where it shows in time.
    """
    # The compiler has the caller's thread: what he has set for his own thread alone holds for the programs.
    with ThreadPoolExecutor(1) as reader:
        loading = reader.submit(load_weights, base, mesh, config.dtype)
        try:
            programs = _compiled(config, base, mesh, plan, start, loading)
        finally:
            frozen = loading.result()
    return frozen, programs


def _compiled(
    config: RunConfig, base: Base, mesh: Mesh, plan: Plan, start: int, loading: Future[Frozen]
) -> placed.Programs:
    frozen = abstract_weights(base, mesh, config.dtype)
    tokens = start_tokens(base.tokenizer, config.seed)
    programs = placed.Programs(config, base.config, mesh, frozen, tokens, plan.steps)
    batch = next(plan.batches(start, base.tokenizer.pad), None)
    if loading.done():
        loading.result()  # raises what is wrong with them
    programs.initial.compiled(frozen)
    if batch is not None:  # a run that is finished has no more
        programs.step.compiled(programs.state, frozen, _abstract(batch, mesh))
    return programs


def _abstract(batch: Any, mesh: Mesh) -> Any:
    return placed.abstract(batch, jax.tree.map(lambda _: meshes.over_data(mesh, dim=1), batch))
