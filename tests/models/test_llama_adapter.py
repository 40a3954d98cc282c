"""llama-adapter equals its formula, and with an open gate the split prefix (law 9); a closed gate hides errors."""

from typing import Any

import expected
import jax.numpy as jnp
import naive
import numpy as np
import pytest
import tiny

from jaxprefix.models.adapters import LlamaAdapter, PrefixTuning
from jaxprefix.models.hooks import Gated

CONFIG, FROZEN = tiny.CONFIG, tiny.FROZEN


@pytest.mark.parametrize("layers", ["top", "1:3"])
@pytest.mark.parametrize("gate", ["head", "layer"])
def test_an_open_gate_is_the_split_prefix(layers: str, gate: Any):
    """tanh(20) is 1 in float32."""
    adapter = LlamaAdapter(3, layers, gate)
    params = tiny.noisy(adapter)
    opened = params | {"gate": jnp.full_like(params["gate"], 20.0)}
    split = tiny.adapted(PrefixTuning(3, layers, softmax="split"), {"hidden": params["hidden"]})
    assert np.array_equal(tiny.adapted(adapter, opened), split)
    assert np.abs(split - tiny.logits())[tiny.REAL].max() > 0.1


@pytest.mark.parametrize("gate", ["head", "layer"])
@pytest.mark.parametrize("activation", ["tanh", "identity"])
def test_is_the_formula(gate: Any, activation: Any):
    """In the layers of the range, and nowhere else."""
    adapter = LlamaAdapter(3, "1:3", gate, activation)
    params = tiny.noisy(adapter)
    assert params["gate"].shape == ((2, CONFIG.heads) if gate == "head" else (2,))
    extras = {}
    for index, layer in enumerate((1, 2)):
        scale = naive.wide(params["gate"][index]) * np.ones(CONFIG.heads)
        scale = np.tanh(scale) if activation == "tanh" else scale
        extras[layer] = naive.Extras(gated=(*expected.slots(params["hidden"][index], layer), scale))
    expected.assert_naive(tiny.adapted(adapter, params), extras)


def test_the_identity_of_a_tanh_is_the_tanh():
    params = tiny.noisy(LlamaAdapter(3))
    closed = params | {"gate": jnp.tanh(params["gate"])}
    found = tiny.adapted(LlamaAdapter(3, activation="identity"), closed)
    assert np.array_equal(tiny.adapted(LlamaAdapter(3), params), found)
    assert np.abs(tiny.adapted(LlamaAdapter(3), closed) - found)[tiny.REAL].max() > 0.01


def test_hooks_are_zero_outside_the_adapted_layers():
    _, hooks = LlamaAdapter(3, "1:3").bind(CONFIG, tiny.noisy(LlamaAdapter(3, "1:3")), FROZEN)
    assert hooks.first_adapted_layer == 1 and isinstance(hooks.gated, Gated)
    for leaf in (hooks.gated.keys, hooks.gated.values, hooks.gated.gate):
        assert [bool(jnp.any(layer != 0)) for layer in leaf] == [False, True, True, False]
