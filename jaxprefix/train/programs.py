"""What a run computes on a mesh: its first state, its sharding, and the jitted step.

The step compiles while the weights load: both can take minutes, and neither needs the other.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jaxprefix.distributed import mesh as meshes
from jaxprefix.models import adapter_init, sharding
from jaxprefix.models.adapters import Adapter
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.decoder import Frozen
from jaxprefix.runs.base_model import Base, abstract_weights, load_weights, start_tokens
from jaxprefix.runs.config import RunConfig
from jaxprefix.train import optimizer as optimizers
from jaxprefix.train.batches import Plan
from jaxprefix.train.step import State, train_step


def optimizer_of(config: RunConfig, steps: int) -> tuple[optax.GradientTransformation, Callable]:
    """The run's optimizer, and its peak learning rate at each step."""
    rates = config.learning_rates
    peak = max(rates.values())
    rate = optimizers.schedule(peak, steps, config.warmup)
    shares = {name: rate / peak for name, rate in rates.items()} if len(rates) > 1 else None
    return optimizers.make(rate, config.weight_decay, config.clip, shares), rate


def initial(
    adapter: Adapter,
    optimizer: optax.GradientTransformation,
    config: DecoderConfig,
    mesh: Mesh,
    frozen: Any,
    tokens: adapter_init.Tokens,
    seed: int,
) -> tuple[Any, State]:
    """(frozen -> fresh parameters and optimizer state, each made where it will lie), jitted; and that state, abstract.

    The weights may be abstract.
    """

    def make(frozen: Any) -> State:
        params = adapter_init.fresh(adapter, jax.random.key(seed), config, frozen, tokens)
        return State(params, optimizer.init(params), jnp.int32(0), jnp.bool_(False))

    shapes = jax.eval_shape(make, frozen)
    whole = meshes.replicated(mesh)
    places = sharding.shardings(mesh, shapes.params)
    moments = optax.tree.map_params(
        optimizer, lambda _, place: place, shapes.optimizer, places, transform_non_params=lambda _: whole
    )
    placed = State(places, moments, whole, whole)  # type: ignore[arg-type]
    return jax.jit(meshes.traced(mesh, make), out_shardings=placed), abstract(shapes, placed)


def abstract(shapes: Any, places: Any) -> Any:
    """The tree of shapes with where each leaf lies."""
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), shapes, places
    )


def jitted(
    config: RunConfig, sizes: DecoderConfig, optimizer: optax.GradientTransformation, mesh: Mesh, state: State
) -> Any:
    """(state, frozen, batch) -> (state, metrics), where the state is given away."""
    key = jax.random.key(config.seed)
    step = train_step(sizes, config.adapter, optimizer, config.remat, key, config.on_nan)
    # Outputs lie where the inputs lay: otherwise the second step would be another program.
    places = (jax.tree.map(lambda leaf: leaf.sharding, state), meshes.replicated(mesh))
    return jax.jit(meshes.traced(mesh, step), donate_argnums=0, out_shardings=places)


class PerShape:
    """A jitted function compiled once for each shape of its last argument; counts the compilations."""

    def __init__(self, function: Any) -> None:
        self.function, self.programs = function, {}

    @property
    def compilations(self) -> int:
        return len(self.programs)

    def compiled(self, *arguments: Any) -> Any:
        """The program for these arguments, which may be abstract."""
        shape = tuple(leaf.shape for leaf in jax.tree.leaves(arguments[-1]))
        if shape not in self.programs:
            self.programs[shape] = self.function.lower(*arguments).compile()
        return self.programs[shape]

    def __call__(self, *arguments: Any) -> Any:
        return self.compiled(*arguments)(*arguments)


class Programs:
    """What a run computes.

    Attributes:
        rate: the optimizer's peak learning rate at each step.
        state: the first state, abstract.
        initial: frozen -> the first state.
        step: (state, frozen, batch) -> (state, metrics), where the state is given away.
    """

    def __init__(
        self, config: RunConfig, sizes: DecoderConfig, mesh: Mesh, frozen: Any, tokens: adapter_init.Tokens, steps: int
    ) -> None:
        """`frozen` may be abstract; `steps` are those of the whole run."""
        optimizer, self.rate = optimizer_of(config, steps)
        make, self.state = initial(config.adapter, optimizer, sizes, mesh, frozen, tokens, config.seed)
        self.initial = PerShape(make)
        self.step = PerShape(jitted(config, sizes, optimizer, mesh, self.state))


def load_and_compile(config: RunConfig, base: Base, mesh: Mesh, plan: Plan, start: int) -> tuple[Frozen, Programs]:
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


def _compiled(config: RunConfig, base: Base, mesh: Mesh, plan: Plan, start: int, loading: Future[Frozen]) -> Programs:
    frozen = abstract_weights(base, mesh, config.dtype)
    tokens = start_tokens(base.tokenizer, config.seed)
    programs = Programs(config, base.config, mesh, frozen, tokens, plan.steps)
    batch = next(plan.batches(start, base.tokenizer.pad), None)
    if loading.done():
        loading.result()  # raises what is wrong with them
    programs.initial.compiled(frozen)
    if batch is not None:  # a run that is finished has no more
        programs.step.compiled(programs.state, frozen, _abstract(batch, mesh))
    return programs


def _abstract(batch: Any, mesh: Mesh) -> Any:
    return abstract(batch, jax.tree.map(lambda _: meshes.over_data(mesh, dim=1), batch))
