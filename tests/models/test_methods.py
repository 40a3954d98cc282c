"""Every method equals what it must equal: the base, another method, or the naive formula (law 9)."""

from typing import Any

import jax
import jax.numpy as jnp
import naive
import numpy as np
import pytest
import tiny

from jaxprefix.models import decoder
from jaxprefix.models.adapters import Adapter, FullFineTuning, LoRA, NoAdapter, PrefixTuning, Sum
from jaxprefix.models.hooks import LowRank

CONFIG, FROZEN, KEY = tiny.CONFIG, tiny.FROZEN, jax.random.key(0)
KV = (CONFIG.kv_heads, CONFIG.head_size)


def hidden_slots(vectors: Any, layer: int) -> tuple[np.ndarray, np.ndarray]:
    """Keys and values `[P, K, H]` that vectors `[P, D]` become at a layer, in float64."""
    weights = FROZEN["layers"]
    keys, values = (np.einsum("pd,khd->pkh", vectors, naive.wide(weights[n][layer])) for n in ("k_proj", "v_proj"))
    return keys, values


def assert_naive(found: np.ndarray, extras: dict[int, naive.Extras], atol: float = 2e-4) -> None:
    for row, length in enumerate(tiny.LENGTHS):
        expected = naive.logits(CONFIG, FROZEN, tiny.TOKENS[row, :length], extras)
        np.testing.assert_allclose(found[row, :length], expected, rtol=0, atol=atol)


@pytest.mark.parametrize(
    "adapter", [NoAdapter(), LoRA(), LoRA(targets="q,k,v,o,gate,up,down"), FullFineTuning()], ids=str
)
def test_a_fresh_adapter_is_the_base_bit_for_bit(adapter: Adapter):
    assert np.array_equal(tiny.adapted(adapter, tiny.fresh(adapter)), tiny.logits())


@pytest.mark.parametrize("layers", ["all", "top:2", "1:3"])
def test_hidden_prefix_is_the_kv_prefix_of_its_projections(layers: str):
    hidden, kv = (PrefixTuning(length=3, layers=layers, source=source) for source in ("hidden", "kv"))
    first, last = {"all": (0, 4), "top:2": (2, 4), "1:3": (1, 3)}[layers]
    vectors = tiny.noisy(hidden)["hidden"]
    assert vectors.shape == (last - first, 3, CONFIG.hidden_size)
    pairs = [hidden_slots(naive.wide(vectors[index]), first + index) for index in range(last - first)]
    keys, values = (jnp.array(np.stack(parts), jnp.float32) for parts in zip(*pairs, strict=True))
    found = tiny.adapted(hidden, {"hidden": vectors})
    np.testing.assert_allclose(
        found[tiny.REAL], tiny.adapted(kv, {"keys": keys, "values": values})[tiny.REAL], rtol=0, atol=5e-5
    )
    # Layers outside the range have no prefix at all: zeros there would take a share of the softmax.
    assert_naive(found, {first + index: naive.Extras(prefix=pair) for index, pair in enumerate(pairs)})


def test_kv_prefix_holding_a_text_is_the_base_with_that_text_in_front():
    text = np.array([17, 3, 52, 8, 8])
    cached: list[tuple[np.ndarray, np.ndarray]] = []
    naive.logits(CONFIG, FROZEN, text, record=cached)
    keys = np.stack([naive.rope(CONFIG, key, first=-len(text)) for key, _ in cached])  # the last stands at position -1
    values = np.stack([value for _, value in cached])
    params = {"keys": jnp.array(keys, jnp.float32), "values": jnp.array(values, jnp.float32)}
    found = tiny.adapted(PrefixTuning(length=len(text), layers="all", source="kv"), params)
    for row, length in enumerate(tiny.LENGTHS):
        whole = tiny.row(np.concatenate([text, tiny.TOKENS[row, :length]]))
        expected = tiny.logits(rows=whole)[0, len(text) :]
        np.testing.assert_allclose(found[row, :length], expected, rtol=0, atol=1e-4)
        assert np.abs(expected - tiny.logits()[row, :length]).max() > 0.1


@pytest.mark.parametrize("source", ["hidden", "kv"])
def test_rows_give_each_row_of_the_batch_its_own_prefix(source: Any):
    adapter = PrefixTuning(length=3, layers="top:3", source=source)
    several = [tiny.noisy(adapter, std) for std in (0.3, 0.6, 0.9)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *several)
    found = tiny.adapted(adapter, stacked, rows=jnp.array([2, 0]))
    for row, chosen in enumerate((2, 0)):
        alone = tiny.adapted(adapter, several[chosen])[row]
        np.testing.assert_allclose(found[row][tiny.REAL[row]], alone[tiny.REAL[row]], rtol=0, atol=5e-5)
    assert np.abs(tiny.adapted(adapter, several[0])[0] - found[0]).max() > 0.1


@pytest.mark.parametrize("targets", ["q,k,v", "q,k,v,o,gate,up,down"])
def test_lora_is_the_base_with_merged_weights(targets: str):
    adapter = LoRA(rank=2, alpha=3.0, targets=targets)
    params = tiny.noisy(adapter, 0.3)
    layers = dict(FROZEN["layers"])
    for name in adapter.projections:
        a, b = naive.wide(params[name]["a"]), naive.wide(params[name]["b"])
        terms = np.stack([np.tensordot(b[layer], a[layer], 1) for layer in range(CONFIG.layers)])
        layers[name] = jnp.array(naive.wide(layers[name]) + 3.0 / 2 * terms, jnp.float32)
    found, merged = tiny.adapted(adapter, params), tiny.logits(frozen=FROZEN | {"layers": layers})
    np.testing.assert_allclose(found[tiny.REAL], merged[tiny.REAL], rtol=0, atol=2e-4)
    assert np.abs(found - tiny.logits()).max() > 0.1


def test_a_sum_applies_both_and_projects_through_the_unadapted_weights():
    prefix, lora = PrefixTuning(length=3, layers="top:2"), LoRA(rank=2, targets="k,v")
    adapter = Sum((("prefix", prefix), ("lora", lora)))
    params = tiny.noisy(adapter, 0.4)
    extras = {}
    for layer in range(CONFIG.layers):
        added = {}
        for name in lora.projections:
            a, b = (naive.wide(params["lora"][name][part][layer]) for part in ("a", "b"))
            added[name] = lambda x, a=a, b=b: lora.alpha / lora.rank * np.tensordot(x @ a.T, b, ((-1,), (-1,)))
        slots = hidden_slots(naive.wide(params["prefix"]["hidden"][layer - 2]), layer) if layer >= 2 else None
        extras[layer] = naive.Extras(prefix=slots, added=added)
    assert_naive(tiny.adapted(adapter, params), extras)


def test_full_gives_the_decoder_its_own_weights_in_the_type_of_the_base():
    base = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), FROZEN)
    adapter = FullFineTuning()
    params = adapter.init(KEY, CONFIG, base)
    weights, hooks = adapter.bind(jax.tree.map(lambda leaf: leaf + 1, params), base)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert jax.tree.map(lambda leaf: leaf.dtype, weights) == jax.tree.map(lambda leaf: leaf.dtype, base)
    assert np.array_equal(weights["norm"], (base["norm"].astype(jnp.float32) + 1).astype(jnp.bfloat16))
    assert not jax.tree.leaves(hooks)


def test_full_starts_from_a_copy_that_a_step_may_donate():
    params = FullFineTuning().init(KEY, CONFIG, FROZEN)
    assert params["norm"].unsafe_buffer_pointer() != FROZEN["norm"].unsafe_buffer_pointer()


def shapes(adapter: Adapter) -> Any:
    return jax.tree.map(lambda leaf: leaf.shape, jax.eval_shape(lambda: adapter.init(KEY, CONFIG, FROZEN)))


def test_shapes_of_parameters():
    assert shapes(NoAdapter()) == {}
    assert shapes(PrefixTuning()) == {"hidden": (2, 10, 16)}  # all but the lowest two of 4 layers
    assert shapes(PrefixTuning(length=3, layers="1:4", source="kv")) == {"keys": (3, 3, 2, 6), "values": (3, 3, 2, 6)}
    assert shapes(LoRA(rank=5, targets="q,k,v,o,gate,up,down")) == {
        "q_proj": {"a": (4, 5, 16), "b": (4, 4, 6, 5)},
        "k_proj": {"a": (4, 5, 16), "b": (4, 2, 6, 5)},
        "v_proj": {"a": (4, 5, 16), "b": (4, 2, 6, 5)},
        "o_proj": {"a": (4, 5, 4, 6), "b": (4, 16, 5)},
        "gate_proj": {"a": (4, 5, 16), "b": (4, 24, 5)},
        "up_proj": {"a": (4, 5, 16), "b": (4, 24, 5)},
        "down_proj": {"a": (4, 5, 24), "b": (4, 16, 5)},
    }
    assert set(shapes(Sum((("prefix", PrefixTuning()), ("lora", LoRA()))))) == {"prefix", "lora"}


def test_random_starts():
    """The prefix normal with its std; LoRA's A uniform within 1/√inputs (Kaiming, √5), its B zero."""
    vectors = tiny.fresh(PrefixTuning(length=50, layers="all", std=0.3))["hidden"]
    assert abs(float(vectors.std()) - 0.3) < 0.02 and abs(float(vectors.mean())) < 0.02
    keys, values = tiny.fresh(PrefixTuning(length=50, layers="all", source="kv", std=0.3)).values()
    assert abs(float(keys.std()) - 0.3) < 0.02 and not np.array_equal(keys, values)
    params = tiny.fresh(LoRA(rank=40, targets="q,o,down"))
    for name, inputs in (("q_proj", 16), ("o_proj", 24), ("down_proj", 24)):
        largest = float(jnp.abs(params[name]["a"]).max())
        assert 0.97 * inputs**-0.5 < largest <= inputs**-0.5
        assert not params[name]["b"].any()
    assert not np.array_equal(params["o_proj"]["a"].ravel(), params["down_proj"]["a"].ravel())


def test_dropout_needs_a_key():
    adapter, params = LoRA(targets="q", dropout=0.4), tiny.noisy(LoRA(targets="q"))
    for without in (adapter.bind(params, FROZEN), LoRA(targets="q").bind(params, FROZEN, KEY)):
        assert without[1].delta["q_proj"].keys is None
    plain = tiny.adapted(adapter, params)
    dropped = [tiny.adapted(adapter, params, key=jax.random.key(seed)) for seed in (0, 0, 1)]
    assert np.array_equal(dropped[0], dropped[1])
    assert all(np.abs(dropped[0] - other).max() > 0.1 for other in (dropped[2], plain))


def test_dropout_differs_by_layer_and_projection():
    _, hooks = LoRA(dropout=0.4).bind(tiny.noisy(LoRA()), FROZEN, KEY)
    keys = [tuple(map(int, key)) for hook in hooks.delta.values() for key in jax.random.key_data(hook.keys)]
    assert len(set(keys)) == len(keys) == 3 * CONFIG.layers


def test_a_sum_hands_its_key_on():
    adapter = Sum((("prefix", PrefixTuning()), ("lora", LoRA(dropout=0.4))))
    without, hooks = (adapter.bind(tiny.noisy(adapter), FROZEN, key)[1].delta for key in (None, KEY))
    assert [delta["q_proj"].keys is None for delta in (without, hooks)] == [True, False]


def test_dropout_keeps_the_mean():
    """The term is linear in its inputs, so that the mean over keys is the term without dropout."""
    inputs, weight = tiny.normal(1, 5, 16), jnp.zeros((7, 16))
    a, b = tiny.normal(2, 3, 16), tiny.normal(3, 7, 3)
    plain = decoder.project(inputs, weight, 1, LowRank(a, b, 0.5))
    draw = jax.vmap(lambda key: decoder.project(inputs, weight, 1, LowRank(a, b, 0.5, 0.3, key)))
    draws = np.asarray(jax.jit(draw, compiler_options=tiny.FAST)(jax.random.split(KEY, 2000)))
    error = draws.std(axis=0) / np.sqrt(len(draws))
    assert error.min() > 0  # something was dropped
    assert np.max(np.abs(draws.mean(axis=0) - plain) / error) < 5


REFUSED = [
    (lambda: LoRA(rank=0), "lora rank is 0"),
    (lambda: LoRA(dropout=1.0), "lora dropout is 1.0"),
    (lambda: LoRA(targets="q,x"), "lora targets are 'q,x'; expected some of q,k,v,o,gate,up,down"),
    (lambda: LoRA(targets="q,q"), "lora targets are 'q,q'"),
    (lambda: LoRA(targets=""), "lora targets are ''"),
    (lambda: PrefixTuning(length=0), "prefix length is 0"),
    (lambda: PrefixTuning(std=-1.0), "prefix std is -1.0"),
    (lambda: PrefixTuning(source="values"), "prefix source is 'values'"),  # type: ignore[arg-type]
    (lambda: PrefixTuning(layers="top:5").init(KEY, CONFIG, FROZEN), "layers 'top:5' of a model of 4;"),
    (lambda: Sum((("prefix", PrefixTuning()), ("none", NoAdapter()))), "none cannot be part of a sum"),
    (lambda: Sum((("full", FullFineTuning()), ("lora", LoRA()))), "full cannot be part of a sum"),
    (lambda: Sum((("lora", LoRA()), ("lora", LoRA(rank=2)))), "'lora+lora': each method may stand only once"),
    (lambda: LoRA().bind({}, FROZEN, rows=jnp.zeros(2, jnp.int32)), "rows of a batch cannot have different LoRA"),
    (lambda: FullFineTuning().bind({}, FROZEN, rows=jnp.zeros(2, jnp.int32)), "full has one adapter only"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_refused(make: Any, message: str):
    with pytest.raises(ValueError) as raised:
        make()
    assert message in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "adapter",
    [NoAdapter(), PrefixTuning(), LoRA(), FullFineTuning(), Sum((("prefix", PrefixTuning()), ("lora", LoRA())))],
    ids=str,
)
def test_keeps_the_protocol(adapter: Adapter):
    """A method is hashable, holds no arrays and prints as its own configuration (law 2)."""
    assert isinstance(adapter, Adapter) and hash(adapter) == hash(adapter)
    scope = {kind.__name__: kind for kind in (NoAdapter, PrefixTuning, LoRA, FullFineTuning, Sum)}
    assert eval(repr(adapter), scope) == adapter
