"""The training step: one update of the adapter, for the mean loss over all learnt tokens of the step."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, PyTree

from jaxprefix.models import decoder
from jaxprefix.models.adapters import Adapter, Regularised
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.decoder import Frozen
from jaxprefix.models.hooks import Params
from jaxprefix.train.batches import TrainBatch


@struct.dataclass
class State:
    """The state of training: all that a step changes."""

    params: Params
    optimizer: PyTree
    step: Array  # steps done, int32
    halted: Array | bool = False  # a step was not finite, and later steps change nothing


def summed_loss(
    config: DecoderConfig,
    adapter: Adapter,
    remat: str,
    params: Params,
    frozen: Frozen,
    batch: TrainBatch,
    key: Array | None,
) -> Array:
    """-Σ log p over the learnt tokens of one micro-batch (leaves without the leading A), in float32."""
    weights, hooks = adapter.bind(config, params, frozen, key)
    states = decoder.hidden_states(config, weights, batch.inputs, hooks, remat, batch.loss_positions)
    logprobs = decoder.token_logprobs(weights, states, batch.targets)
    return -jnp.sum(logprobs * batch.loss_mask)


def train_step(
    config: DecoderConfig,
    adapter: Adapter,
    optimizer: optax.GradientTransformation,
    remat: str,
    key: Array,
    on_nan: str = "stop",
) -> Callable[[State, Frozen, TrainBatch], tuple[State, dict[str, Array]]]:
    """The step as a pure function: (state, frozen, batch) -> (state, {"loss", "gradient_norm", "tokens"}).

    The loss is the mean over all learnt tokens of the step, however they are divided among micro-batches and devices.
    The penalty of an adapter that has one is added to it for the gradient, and is a metric of its own, "penalty".
    A step whose loss or gradient is not finite changes neither parameters nor moments. With `on_nan` "stop" it is not
    counted, and later steps, which may already be running when the caller reads the loss, change nothing.
    """

    def step(state: State, frozen: Frozen, batch: TrainBatch) -> tuple[State, dict[str, Array]]:
        learnt = jnp.maximum(jnp.sum(batch.loss_mask), 1)
        step_key = jax.random.fold_in(key, state.step)

        def add(total: tuple[Array, Params], slices: tuple[TrainBatch, Array]) -> tuple[tuple[Array, Params], None]:
            micro, number = slices

            def loss(params: Params) -> Array:
                micro_key = jax.random.fold_in(step_key, number)
                return summed_loss(config, adapter, remat, params, frozen, micro, micro_key) / learnt

            return jax.tree.map(jnp.add, total, jax.value_and_grad(loss)(state.params)), None

        zero = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, state.params))
        (mean, gradients), _ = jax.lax.scan(add, zero, (batch, jnp.arange(batch.tokens.shape[0])))
        penalty = {}
        if isinstance(adapter, Regularised) and adapter.has_penalty:
            penalty["penalty"], pull = jax.value_and_grad(adapter.penalty)(state.params, frozen)
            gradients = jax.tree.map(jnp.add, gradients, pull)
        updates, moments = optimizer.update(gradients, state.optimizer, state.params)
        updated = (optax.apply_updates(state.params, updates), moments)
        norm = optax.tree.norm(gradients)
        finite = jnp.isfinite(mean) & jnp.isfinite(norm)
        update = finite & jnp.logical_not(state.halted)
        params, moments = jax.tree.map(partial(jnp.where, update), updated, (state.params, state.optimizer))
        metrics = {"loss": mean, "gradient_norm": norm, "tokens": jnp.sum(batch.loss_mask)} | penalty
        if on_nan == "skip":
            return State(params, moments, state.step + 1, state.halted), metrics
        return State(params, moments, state.step + update, jnp.logical_not(finite) | state.halted), metrics

    return step


def held_out_loss(
    config: DecoderConfig, adapter: Adapter
) -> Callable[[Params, Frozen, TrainBatch], tuple[Array, Array]]:
    """(params, frozen, batch) -> (-Σ log p, learnt tokens), without dropout and without gradients."""

    def score(params: Params, frozen: Frozen, batch: TrainBatch) -> tuple[Array, Array]:
        micro = jax.tree.map(lambda leaf: leaf[0], batch)
        return summed_loss(config, adapter, "full", params, frozen, micro, None), jnp.sum(batch.loss_mask)

    return score
