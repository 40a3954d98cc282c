"""The training step on a mesh: where its state lies, and the jitted program."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jaxprefix import mesh as meshes
from jaxprefix.models import start
from jaxprefix.models.adapters import Adapter
from jaxprefix.models.config import DecoderConfig
from jaxprefix.run import RunConfig
from jaxprefix.train import optimizer as optimizers
from jaxprefix.train.step import State, train_step


def optimizer_of(config: RunConfig, steps: int) -> tuple[optax.GradientTransformation, Callable]:
    """The run's optimizer, and its peak learning rate at each step."""
    rates = config.learning_rates
    peak = max(rates.values())
    rate = optimizers.schedule(peak, steps, config.warmup)
    shares = {name: rate / peak for name, rate in rates.items()} if len(rates) > 1 else None
    return optimizers.make(rate, config.weight_decay, config.clip, shares), rate


def initial_state(
    adapter: Adapter,
    optimizer: optax.GradientTransformation,
    config: DecoderConfig,
    mesh: Mesh,
    frozen: Any,
    tokens: start.Tokens,
    seed: int,
) -> State:
    """Fresh parameters and optimizer state, each made where it will lie; of abstract weights, abstract ones."""

    def make(frozen: Any) -> State:
        params = start.fresh(adapter, jax.random.key(seed), config, frozen, tokens)
        return State(params, optimizer.init(params), jnp.int32(0), jnp.bool_(False))

    shapes = jax.eval_shape(make, frozen)
    whole = meshes.replicated(mesh)
    places = meshes.shardings(mesh, shapes.params)
    moments = optax.tree.map_params(
        optimizer, lambda _, place: place, shapes.optimizer, places, transform_non_params=lambda _: whole
    )
    placed = State(places, moments, whole, whole)  # type: ignore[arg-type]
    if isinstance(jax.tree.leaves(frozen)[0], jax.ShapeDtypeStruct):
        return abstract(shapes, placed)
    return jax.jit(meshes.traced(mesh, make), out_shardings=placed)(frozen)


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
