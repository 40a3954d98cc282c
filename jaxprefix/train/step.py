"""The training step: gradients of the adapter alone, the mean loss over all learnt tokens of the step, one update."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array

from jaxprefix.models import decoder
from jaxprefix.models.adapters import Adapter
from jaxprefix.models.config import DecoderConfig
from jaxprefix.train.batches import TrainBatch


@struct.dataclass
class State:
    """What training changes; everything else is an argument that the step only reads."""

    params: Any
    optimizer: Any
    step: Array  # steps done, int32
    halted: Array | bool = False  # a step was not finite and nothing may change any more


def summed_loss(
    config: DecoderConfig, adapter: Adapter, remat: str, params: Any, frozen: Any, batch: TrainBatch, key: Array | None
) -> Array:
    """-Σ log p over the learnt tokens of one micro-batch (its leaves without the leading A), float32."""
    weights, hooks = adapter.bind(params, frozen, key)
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
) -> Callable[[State, Any, TrainBatch], tuple[State, dict[str, Array]]]:
    """The step as a pure function: (state, frozen, batch) -> (state, {"loss", "gradient_norm", "tokens"}).

    The loss is the mean over the learnt tokens of the whole step, whatever the micro-batches' and devices' shares.
    A step whose loss or gradient is not finite leaves parameters and moments as they were. With `on_nan` "stop" it does
    not count as a step either and all later ones change nothing: they may be under way when the caller reads of it.
    """

    def step(state: State, frozen: Any, batch: TrainBatch) -> tuple[State, dict[str, Array]]:
        learnt = jnp.maximum(jnp.sum(batch.loss_mask), 1)
        step_key = jax.random.fold_in(key, state.step)

        def add(total: tuple[Array, Any], slices: tuple[TrainBatch, Array]) -> tuple[tuple[Array, Any], None]:
            micro, number = slices

            def loss(params: Any) -> Array:
                micro_key = jax.random.fold_in(step_key, number)
                return summed_loss(config, adapter, remat, params, frozen, micro, micro_key) / learnt

            return jax.tree.map(jnp.add, total, jax.value_and_grad(loss)(state.params)), None

        zero = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, state.params))
        (mean, gradients), _ = jax.lax.scan(add, zero, (batch, jnp.arange(batch.tokens.shape[0])))
        updates, moments = optimizer.update(gradients, state.optimizer, state.params)
        changed = (optax.apply_updates(state.params, updates), moments)
        norm = optax.tree.norm(gradients)
        finite = jnp.isfinite(mean) & jnp.isfinite(norm)
        good = finite & jnp.logical_not(state.halted)
        params, moments = jax.tree.map(partial(jnp.where, good), changed, (state.params, state.optimizer))
        metrics = {"loss": mean, "gradient_norm": norm, "tokens": jnp.sum(batch.loss_mask)}
        if on_nan == "skip":
            return State(params, moments, state.step + 1, state.halted), metrics
        return State(params, moments, state.step + good, jnp.logical_not(finite) | state.halted), metrics

    return step


def held_out_loss(config: DecoderConfig, adapter: Adapter) -> Callable[[Any, Any, TrainBatch], tuple[Array, Array]]:
    """(params, frozen, batch) -> (-Σ log p, learnt tokens), without dropout and without gradients."""

    def score(params: Any, frozen: Any, batch: TrainBatch) -> tuple[Array, Array]:
        micro = jax.tree.map(lambda leaf: leaf[0], batch)
        return summed_loss(config, adapter, "full", params, frozen, micro, None), jnp.sum(batch.loss_mask)

    return score
