"""Optax changes only the adapter, with a schedule that is never 0 (law 1)."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxprefix.models import adapter_init
from jaxprefix.models.adapters import IA3, BottleneckAdapter, LlamaAdapter, LoRA, PrefixTuning, SoftPrompt
from jaxprefix.models.config import DecoderConfig, Rope
from jaxprefix.models.decoder import shapes
from jaxprefix.runs.config import RunConfig
from jaxprefix.train import optimizer

CLIP = 0.1
FROZEN = {"layers": {"q_proj": jnp.linspace(-1, 1, 24).reshape(2, 3, 4)}, "norm": jnp.ones(4)}
ADAPTER = {"q_proj": {"a": jnp.linspace(0.1, 1, 6), "b": jnp.linspace(-2, 1, 4)}, "hidden": jnp.linspace(1, 2, 5)}
JOINT = {"frozen": FROZEN, "adapter": ADAPTER}


def clipped_adamw() -> optax.GradientTransformation:
    return optimizer.adamw(optimizer.schedule(0.1, 10, 0.2), weight_decay=0.1, clip=CLIP)


def gradients(step: int) -> Any:
    """The gradients of a joint tree; those of frozen leaves are far larger."""
    own = jax.tree.map(lambda leaf: jnp.cos(leaf * (step + 1)), JOINT)
    return own | {"frozen": jax.tree.map(lambda leaf: 1000 * leaf, own["frozen"])}


def steps(
    transformation: optax.GradientTransformation, params: Any, pick: Callable[[Any], Any] = dict
) -> tuple[Any, Any]:
    """Parameters and state after three steps."""
    state, update = transformation.init(params), jax.jit(transformation.update)
    for step in range(3):
        updates, state = update(pick(gradients(step)), state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def sgd() -> optax.GradientTransformation:
    """SGD: unlike Adam it depends on how much a gradient was clipped."""
    return optax.chain(optax.clip_by_global_norm(CLIP), optax.sgd(1.0))


@pytest.mark.parametrize("transformation", [clipped_adamw, sgd])
def test_adapter_only_changes_the_adapter_as_if_it_were_alone(transformation: Callable[[], Any]):
    """The updates are equal, so the clip norm covered only the adapter's gradients; the frozen leaves are unchanged,
    bit for bit.
    """
    joint, _ = steps(optimizer.adapter_only(transformation()), JOINT)
    alone, _ = steps(transformation(), ADAPTER, lambda gradient: gradient["adapter"])
    jax.tree.map(np.testing.assert_array_equal, joint["adapter"], alone)
    jax.tree.map(np.testing.assert_array_equal, joint["frozen"], FROZEN)
    assert all(float(jnp.abs(a - b).max()) > 1e-3 for a, b in zip(*map(jax.tree.leaves, (alone, ADAPTER)), strict=True))


def test_a_clip_norm_over_both_branches_would_have_been_seen():
    outside = optax.chain(optax.clip_by_global_norm(CLIP), optimizer.adapter_only(optax.sgd(1.0)))
    shrunk, _ = steps(outside, JOINT)
    alone, _ = steps(sgd(), ADAPTER, lambda gradient: gradient["adapter"])
    moved = [float(jnp.abs(params["hidden"] - ADAPTER["hidden"]).max()) for params in (shrunk["adapter"], alone)]
    assert moved[0] < 0.01 * moved[1]


def test_only_the_adapter_has_moments():
    _, state = steps(optimizer.adapter_only(clipped_adamw()), JOINT)
    held = sorted(leaf.shape for leaf in jax.tree.leaves(state) if leaf.ndim)
    assert held == sorted(2 * [leaf.shape for leaf in jax.tree.leaves(ADAPTER)])  # first and second moments


def test_the_first_step_is_adamw_as_published():
    """With decoupled weight decay (arXiv:1711.05101): -rate · (sign of the gradient + decay · weight), for leaves with
    decay.
    """
    transformation = clipped_adamw()
    params = {"a": jnp.array([2.0, -3.0]), "hidden": jnp.array([2.0, -3.0])}
    gradient = jax.tree.map(lambda leaf: jnp.array([0.01, -0.02]), params)  # together below the clip norm
    updates, _ = transformation.update(gradient, transformation.init(params), params)
    rate = 0.1 / 2  # the first of two rising steps
    np.testing.assert_allclose(updates["a"], -rate * (np.array([1, -1]) + 0.1 * np.array([2, -3])), rtol=1e-4)
    np.testing.assert_allclose(updates["hidden"], -rate * np.array([1, -1]), rtol=1e-4)


def test_a_large_gradient_is_scaled_to_the_clip_norm():
    """The norm is over all leaves; the first moment after one step is a tenth of the gradient."""
    gradient = {"a": jnp.array([3.0, -4.0]), "hidden": jnp.array([12.0, 0.0])}  # of norm 13
    transformation = optimizer.adamw(lambda count: 1.0, weight_decay=0.1, clip=0.26)
    _, state = transformation.update(gradient, transformation.init(gradient), gradient)
    moments = optax.tree.get(state, "mu")
    for name, leaf in gradient.items():
        np.testing.assert_allclose(moments[name], 0.1 * 0.02 * leaf, rtol=1e-5)


def test_members_of_a_sum_have_their_own_learning_rates():
    """Each has its own learning rate, as if it were alone; their common gradient is clipped."""
    config = RunConfig(model="any", method="prefix+lora")
    assert config.learning_rates == {"prefix": 3e-3, "lora": 1e-3}
    assert replace(config, lr=0.1).learning_rates == {"prefix": 0.1, "lora": 0.1}
    params = {name: {"a": jnp.array([2.0, -3.0])} for name in ("prefix", "lora")}
    gradient = jax.tree.map(lambda leaf: 0.01 * leaf, params)
    both = optimizer.adamw(optax.constant_schedule(3e-3), 0.1, 1.0, {"prefix": 1.0, "lora": 1 / 3})
    updates, _ = both.update(gradient, both.init(params), params)
    for name, rate in config.learning_rates.items():
        alone = optimizer.adamw(optax.constant_schedule(rate), 0.1, 1.0)
        expected, _ = alone.update(gradient[name], alone.init(params[name]), params[name])
        np.testing.assert_allclose(updates[name]["a"], expected["a"], rtol=1e-6)


def test_clip_zero_turns_clipping_off():
    found = []
    for clip in (0.0, 1e9, 1e-3):
        transformation = optimizer.adamw(lambda count: 1.0, weight_decay=0.0, clip=clip)
        state = transformation.init(ADAPTER)
        for gradient in (ADAPTER, jax.tree.map(lambda leaf: 100 * leaf, ADAPTER)):
            updates, state = transformation.update(gradient, state, ADAPTER)
        found.append(updates["hidden"])
    assert np.array_equal(found[0], found[1])
    assert not np.allclose(found[0], found[2], rtol=0.01)


@pytest.mark.parametrize(
    ("steps", "warmup", "expected"),
    [
        (10, 0.2, [0.5, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]),
        (5, 0.0, [1, 1, 3 / 4, 2 / 4, 1 / 4]),
        (4, 1.0, [1 / 4, 2 / 4, 3 / 4, 1]),
        (1, 0.05, [1]),
    ],
)
def test_schedule(steps: int, warmup: float, expected: list[float]):
    """Up to the peak and down again; every step of the run has an update, and later steps have none."""
    rate = optimizer.schedule(3e-3, steps, warmup)
    np.testing.assert_allclose([rate(count) for count in range(steps)], 3e-3 * np.array(expected), rtol=1e-6)
    assert steps == 4 or rate(steps) == 0


def test_schedule_of_a_long_run():
    rates = np.array(jax.vmap(optimizer.schedule(1.0, 1000, 0.05))(jnp.arange(1000)))
    assert rates.max() == 1 and rates.min() > 0
    assert (np.diff(rates[:50]) > 0).all() and (np.diff(rates[50:]) < 0).all()
    np.testing.assert_allclose(rates[[0, 49, 50, -1]], [1 / 50, 1, 1, 1 / 950], rtol=1e-6)


def test_prefixes_gates_and_norms_have_no_weight_decay():
    config = DecoderConfig(8, 4, 4, 2, 2, 1, 2, 1e-5, Rope(1e4), 8)
    methods = (
        PrefixTuning(source="kv", mlp=12),
        LlamaAdapter(),
        SoftPrompt(),
        LoRA(targets="q", dora=True),
        BottleneckAdapter(),
        IA3("k"),
    )
    params = {method.method: adapter_init.abstract_params(method, config) for method in methods}
    params["kv"] = adapter_init.abstract_params(PrefixTuning(source="kv"), config)
    assert optimizer.weight_decay_mask(params) == {
        "prefix": {
            "slots": False,
            **{"inner": True, "inner_bias": False},
            **{"keys_map": True, "keys_bias": False, "values_map": True, "values_bias": False},
        },
        "kv": {"keys": False, "values": False},
        "llama-adapter": {"hidden": False, "gate": False},
        "soft-prompt": {"prompt": False},
        "lora": {"q_proj": {"a": True, "b": True, "magnitude": False}},
        "bottleneck": {"after_feed_forward": {"down": True, "up": True}},
        "ia3": {"k_proj": {"gain": False}},
    }
    mlp = adapter_init.abstract_params(PrefixTuning(mlp=12), config)
    assert optimizer.weight_decay_mask({name: leaf for name, leaf in mlp.items() if "hidden" in name}) == {
        "hidden_map": True,
        "hidden_bias": False,
    }
    assert optimizer.weight_decay_mask({"hidden": 0}) == {"hidden": False}
    weights = optimizer.weight_decay_mask(shapes(config))
    assert {name for name, acts in weights.items() if acts is False} == {"norm"}
    assert {name for name, acts in weights["layers"].items() if not acts} == {
        "input_layernorm",
        "post_attention_layernorm",
    }
