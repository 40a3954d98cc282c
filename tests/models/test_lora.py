"""lora equals the base with W + (alpha/r)·B A (law 9), and its dropout keeps the mean."""

import jax
import jax.numpy as jnp
import naive
import numpy as np
import pytest
import tiny
from every import ALL_SEVEN

from jaxprefix.models import block
from jaxprefix.models.adapters import LoRA
from jaxprefix.models.hooks import LowRank

CONFIG, FROZEN, KEY = tiny.CONFIG, tiny.FROZEN, jax.random.key(0)


@pytest.mark.parametrize("targets", ["q,k,v", ALL_SEVEN])
def test_lora_is_the_base_with_merged_weights(targets: str):
    adapter = LoRA(rank=2, alpha=3.0, targets=targets)
    params = tiny.noisy(adapter, 0.3)
    layers = dict(FROZEN["layers"])
    for name in adapter.projections:
        a, b = naive.wide(params[name]["a"]), naive.wide(params[name]["b"])
        terms = 3.0 / 2 * np.stack([np.tensordot(b[layer], a[layer], 1) for layer in range(CONFIG.layers)])
        changed = naive.wide(layers[name]) + terms
        matrices = layers[name].reshape(CONFIG.layers, -1, a[0, 0].size)
        np.testing.assert_allclose(
            adapter.merged(matrices, params[name]), changed.reshape(matrices.shape), rtol=0, atol=1e-6
        )
        layers[name] = jnp.array(changed, jnp.float32)
    found, merged = tiny.adapted(adapter, params), tiny.logits(frozen=FROZEN | {"layers": layers})
    np.testing.assert_allclose(found[tiny.REAL], merged[tiny.REAL], rtol=0, atol=2e-4)
    assert np.abs(found - tiny.logits()).max() > 0.1


def test_dropout_needs_a_key():
    adapter, params = LoRA(targets="q", dropout=0.4), tiny.noisy(LoRA(targets="q"))
    for without in (adapter.bind(CONFIG, params, FROZEN), LoRA(targets="q").bind(CONFIG, params, FROZEN, KEY)):
        assert without[1].delta["q_proj"].dropout_keys is None
    plain = tiny.adapted(adapter, params)
    dropped = [tiny.adapted(adapter, params, key=jax.random.key(seed)) for seed in (0, 0, 1)]
    assert np.array_equal(dropped[0], dropped[1])
    assert all(np.abs(dropped[0] - other).max() > 0.1 for other in (dropped[2], plain))


def test_dropout_differs_by_layer_and_projection():
    _, hooks = LoRA(dropout=0.4).bind(CONFIG, tiny.noisy(LoRA()), FROZEN, KEY)
    keys = [tuple(map(int, key)) for hook in hooks.delta.values() for key in jax.random.key_data(hook.dropout_keys)]
    assert len(set(keys)) == len(keys) == 3 * CONFIG.layers


def test_dropout_keeps_the_mean():
    """The term is linear in its inputs, so that the mean over keys is the term without dropout."""
    inputs, weight = tiny.normal(1, 5, 16), jnp.zeros((7, 16))
    a, b = tiny.normal(2, 3, 16), tiny.normal(3, 7, 3)
    plain = block.project(inputs, weight, 1, LowRank(a, b, 0.5))
    draw = jax.vmap(lambda key: block.project(inputs, weight, 1, LowRank(a, b, 0.5, 0.3, key)))
    draws = np.asarray(jax.jit(draw)(jax.random.split(KEY, 2000)))
    error = draws.std(axis=0) / np.sqrt(len(draws))
    assert error.min() > 0  # dropout had an effect
    assert np.max(np.abs(draws.mean(axis=0) - plain) / error) < 5
