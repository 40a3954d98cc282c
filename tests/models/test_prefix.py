"""A prefix equals its formula: of vectors or keys, with one softmax or two, with or without an MLP (law 9)."""

from dataclasses import replace
from typing import Any

import expected
import jax
import jax.numpy as jnp
import naive
import numpy as np
import pytest
import tiny

from jaxprefix.models.adapters import PrefixTuning

CONFIG, FROZEN, KEY = tiny.CONFIG, tiny.FROZEN, jax.random.key(0)
RANGES = {"top": (0, 4), "top:2": (2, 4), "top:3": (1, 4), "1:3": (1, 3)}


def extras(softmax: str, pair: tuple[np.ndarray, np.ndarray]) -> naive.Extras:
    """A layer's keys and values where the formula has them: split is a gate of 1."""
    return naive.Extras(prefix=pair) if softmax == "joint" else naive.Extras(gated=(*pair, np.ones(CONFIG.heads)))


@pytest.mark.parametrize("layers", RANGES)
@pytest.mark.parametrize("softmax", ["joint", "split"])
def test_hidden_prefix_is_the_kv_prefix_of_its_projections(layers: str, softmax: Any):
    """And both are the formula. Zeros outside the range would take a share of a joint softmax."""
    first, last = RANGES[layers]
    hidden, kv = (PrefixTuning(3, layers, source, softmax) for source in ("hidden", "kv"))
    vectors = tiny.noisy(hidden)["hidden"]
    assert vectors.shape == (last - first, 3, CONFIG.hidden_size)
    pairs = [expected.slots(vectors[index], first + index) for index in range(last - first)]
    keys, values = (jnp.array(np.stack(parts), jnp.float32) for parts in zip(*pairs, strict=True))
    found = tiny.adapted(hidden, {"hidden": vectors})
    np.testing.assert_allclose(
        found[tiny.REAL], tiny.adapted(kv, {"keys": keys, "values": values})[tiny.REAL], rtol=0, atol=5e-5
    )
    expected.assert_naive(found, {first + index: extras(softmax, pair) for index, pair in enumerate(pairs)})


def test_split_is_another_method_than_joint():
    params = tiny.noisy(PrefixTuning(3))
    joint, split = (tiny.adapted(PrefixTuning(3, softmax=softmax), params) for softmax in ("joint", "split"))
    assert np.abs(joint - split)[tiny.REAL].max() > 0.1


def test_kv_prefix_holding_a_text_is_the_base_with_that_text_in_front():
    text = np.array([17, 3, 52, 8, 8])
    cached: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    naive.logits(CONFIG, FROZEN, text, record=cached)
    keys = np.stack([naive.rope(CONFIG, key, first=-len(text)) for _, key, _ in cached])  # the last stands at -1
    values = np.stack([value for _, _, value in cached])
    params = {"keys": jnp.array(keys, jnp.float32), "values": jnp.array(values, jnp.float32)}
    found = tiny.adapted(PrefixTuning(length=len(text), layers="all", source="kv"), params)
    for row, length in enumerate(tiny.LENGTHS):
        whole = tiny.row(np.concatenate([text, tiny.TOKENS[row, :length]]))
        wanted = tiny.logits(rows=whole)[0, len(text) :]
        np.testing.assert_allclose(found[row, :length], wanted, rtol=0, atol=1e-4)
        assert np.abs(wanted - tiny.logits()[row, :length]).max() > 0.1


def by_hand(adapter: PrefixTuning, params: Any) -> dict[str, np.ndarray]:
    """The virtual tokens that the MLP computes, in float64, one at a time."""
    wide = {name: naive.wide(leaf) for name, leaf in params.items()}
    names = ["hidden"] if adapter.source == "hidden" else ["keys", "values"]
    made = {}
    for name in names:
        inner = [np.tanh(slot @ wide["inner"] + wide["inner_bias"]) for slot in wide["slots"]]
        pairs = zip(wide[f"{name}_map"], wide[f"{name}_bias"], strict=True)
        made[name] = np.array([[np.tensordot(units, maps, 1) + bias for units in inner] for maps, bias in pairs])
    return made


@pytest.mark.parametrize("source", ["hidden", "kv"])
@pytest.mark.parametrize("softmax", ["joint", "split"])
def test_an_mlp_is_folded_into_the_virtual_tokens_that_it_computes(source: Any, softmax: Any):
    adapter = PrefixTuning(3, "1:3", source, softmax, mlp=5)
    params = tiny.noisy(adapter)
    folded, slots = adapter.fold(params)
    assert folded == replace(adapter, mlp=0) and folded.fold(slots) == (folded, slots)
    assert jax.tree.map(jnp.shape, slots) == jax.tree.map(jnp.shape, tiny.noisy(folded))
    for name, wanted in by_hand(adapter, params).items():
        np.testing.assert_allclose(slots[name], wanted, rtol=0, atol=1e-5)
    found, plain = tiny.adapted(adapter, params), tiny.adapted(folded, slots)
    np.testing.assert_allclose(found[tiny.REAL], plain[tiny.REAL], rtol=0, atol=1e-5)
    assert np.abs(plain - tiny.logits())[tiny.REAL].max() > 0.1


@pytest.mark.parametrize("source", ["hidden", "kv"])
def test_an_mlp_starts_with_the_std_of_a_plain_prefix(source: Any):
    """Within 5%, for some 50,000 numbers; and no two virtual tokens are equal."""
    config = replace(CONFIG, hidden_size=256, kv_heads=4, head_size=32)
    adapter = PrefixTuning(50, "all", source, start="random", std=0.5, mlp=64)
    _, slots = adapter.fold(adapter.init(KEY, config, None))
    plain = replace(adapter, mlp=0).init(KEY, config, None)
    for name, leaf in plain.items():
        assert slots[name].shape == leaf.shape
        assert float(leaf.std()) == pytest.approx(0.5, rel=0.05)
        assert float(slots[name].std()) == pytest.approx(0.5, rel=0.05)
        flat = slots[name].reshape(-1, *leaf.shape[2:])
        assert float(jnp.abs(flat[0] - flat[1]).max()) > 0.5


@pytest.mark.parametrize("source", ["hidden", "kv"])
def test_an_mlp_starts_at_the_virtual_tokens_of_a_text(source: Any):
    adapter = PrefixTuning(3, "1:3", source, mlp=5)
    expected = tiny.fresh(replace(adapter, mlp=0))
    _, slots = adapter.fold(tiny.fresh(adapter))
    for name, leaf in expected.items():
        np.testing.assert_allclose(slots[name], leaf, rtol=0, atol=1e-5, err_msg=name)
