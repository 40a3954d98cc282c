"""The programs of a run on a mesh: its first state and its step, compiled from the shapes of their arguments.

The step is compiled while the weights load. Both can take minutes, and they do not depend on each other.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, Sharding
from jaxtyping import PyTree

from jaxprefix.distributed import mesh as meshes
from jaxprefix.models import adapter_init, sharding
from jaxprefix.models.adapters import IMPORTANCE, needs_importance
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.decoder import Frozen
from jaxprefix.models.hooks import Params
from jaxprefix.runs.base_model import BaseModel, abstract_weights, init_token_ids
from jaxprefix.runs.config import RunConfig
from jaxprefix.runs.loaded import Loaded
from jaxprefix.train import optimizer as optimizers
from jaxprefix.train.batches import Plan, TrainBatch
from jaxprefix.train.step import State, train_step

Tree = TypeVar("Tree")
Executables = dict[tuple[tuple[int, ...], ...], jax.stages.Compiled]  # by the shapes of the last argument


class CompiledByShape:
    """A jitted function that is compiled once for each shape of its last argument.

    Attributes:
        compilations: how often it was compiled for this object.
    """

    def __init__(
        self, function: jax.stages.Wrapped, executables: Executables | None = None, values: PyTree | None = None
    ) -> None:
        """`executables` are those of an equal function. `values` are further last arguments of every call."""
        self.function, self.compilations = function, 0
        self.executables = {} if executables is None else executables
        self._values = () if values is None else (values,)

    def lower(self, *arguments: PyTree) -> jax.stages.Lowered:
        """The function, lowered for these arguments, which may be abstract."""
        return self.function.lower(*arguments, *self._values)

    def compile(self, *arguments: PyTree) -> jax.stages.Compiled:
        """The executable for these arguments, which may be abstract."""
        shapes = tuple(leaf.shape for leaf in jax.tree.leaves(arguments[-1]))
        if shapes not in self.executables:
            self.executables[shapes] = self.lower(*arguments).compile()
            self.compilations += 1
        return self.executables[shapes]

    def __call__(self, *arguments: PyTree) -> PyTree:
        return self.compile(*arguments)(*arguments, *self._values)


class RunValues(NamedTuple):
    """What the step takes as an argument, so that runs with other values need not compile it again."""

    learning_rate: jax.Array  # the peak
    key: jax.Array  # the data of the seed's key


class TrainPrograms:
    """The first state and the step of a run. A dry run only lowers the step.

    Attributes:
        mesh: the devices that the programs run on.
        frozen: the frozen weights, abstract, and the importance of each if the penalty needs it.
        state: the first state, abstract.
        learning_rate: the optimizer's peak learning rate at each step.
        step: (state, frozen, batch) -> (state, metrics); the state is donated.
    """

    def __init__(
        self,
        config: RunConfig,
        sizes: DecoderConfig,
        mesh: Mesh,
        frozen: Frozen,
        init_tokens: adapter_init.InitTokens,
        steps: int,
        loaded: Loaded | None = None,
    ) -> None:
        """`frozen` may be abstract: only its shapes and shardings are used. The run has `steps` steps.

        Runs that share `loaded` and differ only in the learning rate or the seed have one step: it takes both as
        arguments.
        """
        loaded = loaded or Loaded()
        rates = config.learning_rates
        peak = max(rates.values())
        self.learning_rate = optimizers.schedule(peak, steps, config.warmup)
        optimizer = _optimizer(config, steps, peak)

        def init(frozen: Frozen) -> State:
            params = adapter_init.init_params(config.adapter, jax.random.key(config.seed), sizes, frozen, init_tokens)
            return State(params, optimizer.init(params), jnp.int32(0), jnp.bool_(False))

        def step(
            state: State, frozen: Frozen, batch: TrainBatch, values: RunValues
        ) -> tuple[State, dict[str, jax.Array]]:
            key, optimizer = jax.random.wrap_key_data(values.key), _optimizer(config, steps, values.learning_rate)
            return train_step(sizes, config.adapter, optimizer, config.remat, key, config.on_nan)(state, frozen, batch)

        self.mesh, self.frozen = mesh, jax.tree.map(_abstract, frozen)
        if needs_importance(config.adapter):
            self.frozen = self.frozen | {IMPORTANCE: jax.tree.map(_in_float32, self.frozen)}
        shapes = jax.eval_shape(init, self.frozen)
        shardings = _state_shardings(mesh, optimizer, shapes)
        self.state: State = abstract(shapes, shardings)
        ratios = tuple(rate / peak for rate in rates.values()) if peak else ()
        common = (sizes, mesh, config.adapter, config.dtype, steps, ratios)
        first: Executables = loaded.program(("init", *common, config.seed), dict)
        self._init = CompiledByShape(jax.jit(meshes.with_mesh(mesh, init), out_shardings=shardings), first)
        # The new state has the shardings of the old one. Otherwise the second step would be another program.
        outputs = (shardings, meshes.replicated(mesh))
        key = np.asarray(jax.random.key_data(jax.random.key(config.seed)))
        values = RunValues(np.float32(peak), key)  # type: ignore[arg-type] - NumPy, for devices that need not exist
        settings = (config.remat, config.on_nan, config.weight_decay, config.clip, config.warmup)
        executables: Executables = loaded.program(("step", *common, *settings), dict)
        function = jax.jit(meshes.with_mesh(mesh, step), donate_argnums=0, out_shardings=outputs)
        self.step = CompiledByShape(function, executables, values)

    def init(self, frozen: Frozen, params: Params | None = None) -> State:
        """The first state, with fresh parameters or a copy of `params`. (A copy, because steps donate the state.)"""
        state = self._init(frozen)
        if params is None:
            return state
        copied = jax.tree.map(lambda leaf, like: jax.device_put(jnp.copy(leaf), like.sharding), params, state.params)
        return replace(state, params=copied)  # type: ignore[type-var]

    def place(self, batch: TrainBatch) -> TrainBatch:
        """The batch, sharded over the mesh."""
        return meshes.shard_batch(self.mesh, batch, dim=1)

    def lower(self, batch: TrainBatch) -> jax.stages.Lowered:
        """The step for batches of this shape, lowered. The devices of the mesh need not exist."""
        return self.step.lower(self.state, self.frozen, self._abstract_batch(batch))

    def compile(self, batch: TrainBatch | None) -> None:
        """Compiles the first state and, unless `batch` is None, the step for batches of this shape."""
        self._init.compile(self.frozen)
        if batch is not None:
            self.step.compile(self.state, self.frozen, self._abstract_batch(batch))

    def _abstract_batch(self, batch: TrainBatch) -> TrainBatch:
        return abstract(batch, jax.tree.map(lambda _: meshes.batch_sharding(self.mesh, dim=1), batch))


def load_and_compile(
    config: RunConfig, base: BaseModel, mesh: Mesh, plan: Plan, start: int, loaded: Loaded | None = None
) -> tuple[Frozen, TrainPrograms]:
    """The weights, and the programs of the run, compiled for the batch after step `start`.

    `loaded` has those of an earlier run. For a penalty that needs it, the frozen tree of the programs also has the
    importance, which is not computed here.

    An error in the weights takes precedence over one of the compiler. If it comes early, nothing is compiled.
    """
    loaded = loaded or Loaded()
    # The thread of the caller compiles, so that JAX options which are set for this thread apply.
    with ThreadPoolExecutor(1) as reader:
        loading = reader.submit(loaded.weights, base, mesh, config.dtype)
        try:
            shapes = abstract_weights(base, mesh, config.dtype)
            tokens = init_token_ids(base.tokenizer, config.seed)
            programs = TrainPrograms(config, base.config, mesh, shapes, tokens, plan.steps, loaded)
            batch = next(plan.batches(start, base.tokenizer.pad), None)  # None if the run is finished
            if loading.done():
                loading.result()  # raises an error in the weights
            programs.compile(batch)
        finally:
            frozen = loading.result()
    return frozen, programs


def abstract(shapes: Tree, shardings: PyTree[Sharding]) -> Tree:
    """The tree of ShapeDtypeStructs with these shapes and shardings."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes, shardings
    )


def _abstract(leaf: jax.Array | jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def _in_float32(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, jnp.float32, sharding=leaf.sharding)


def _optimizer(config: RunConfig, steps: int, peak: jax.Array | float) -> optax.GradientTransformation:
    """The run's optimizer, with the peak learning rate of its fastest method, which may be traced."""
    rates = config.learning_rates
    fastest = max(rates.values())
    multipliers = {name: rate / fastest for name, rate in rates.items()} if len(rates) > 1 else None
    schedule = optimizers.schedule(peak, steps, config.warmup)
    return optimizers.adamw(schedule, config.weight_decay, config.clip, multipliers)


def _state_shardings(mesh: Mesh, optimizer: optax.GradientTransformation, shapes: State) -> State:
    """Moments have the shardings of their parameters. Scalars are replicated."""
    params, replicated = sharding.param_shardings(mesh, shapes.params), meshes.replicated(mesh)
    moments = optax.tree.map_params(
        optimizer, lambda _, sharding: sharding, shapes.optimizer, params, transform_non_params=lambda _: replicated
    )
    return State(params, moments, replicated, replicated)  # type: ignore[arg-type]
