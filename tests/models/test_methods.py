"""Every method follows the protocol. A fresh one that should change nothing equals the base bit for bit, and sums apply
each member.
"""

from typing import Any

import every
import expected
import jax
import jax.numpy as jnp
import naive
import numpy as np
import pytest
import tiny

from jaxprefix.models import adapter_init, adapters
from jaxprefix.models.adapters import (
    IA3,
    Adapter,
    BottleneckAdapter,
    FullFineTuning,
    LlamaAdapter,
    LoRA,
    NoAdapter,
    PrefixTuning,
    SoftPrompt,
    Sum,
)

CONFIG, FROZEN, KEY = tiny.CONFIG, tiny.FROZEN, jax.random.key(0)
SILENT: list[Adapter] = [
    NoAdapter(),
    LoRA(),
    LoRA(targets=every.ALL_SEVEN),
    LlamaAdapter(3),
    LlamaAdapter(3, "all", "layer"),
    LlamaAdapter(3, "1:3", "head", "identity"),
    LlamaAdapter(3, "top:1", "layer", "identity"),
    BottleneckAdapter(5),
    BottleneckAdapter(5, "houlsby"),
    IA3(),
    IA3(every.ALL_SEVEN),
    FullFineTuning(),
    Sum((("llama-adapter", LlamaAdapter(3)), ("lora", LoRA()), ("bottleneck", BottleneckAdapter(5)))),
]


@pytest.mark.parametrize("adapter", SILENT, ids=str)
def test_a_fresh_adapter_is_the_base_bit_for_bit(adapter: Adapter):
    assert np.array_equal(tiny.adapted(adapter, tiny.fresh(adapter)), tiny.logits())
    if not isinstance(adapter, NoAdapter):
        assert np.abs(tiny.adapted(adapter, tiny.noisy(adapter)) - tiny.logits())[tiny.REAL].max() > 0.02


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
        slots = expected.slots(params["prefix"]["hidden"][layer - 2], layer) if layer >= 2 else None
        extras[layer] = naive.Extras(prefix=slots, added=added)
    expected.assert_naive(tiny.adapted(adapter, params), extras)


def test_a_sum_hands_its_key_on():
    adapter = Sum((("prefix", PrefixTuning()), ("lora", LoRA(dropout=0.4))))
    without, hooks = (adapter.bind(CONFIG, tiny.noisy(adapter), FROZEN, key)[1].delta for key in (None, KEY))
    assert [delta["q_proj"].dropout_keys is None for delta in (without, hooks)] == [True, False]


def test_full_gives_the_decoder_its_own_weights_in_the_type_of_the_base():
    base = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), FROZEN)
    adapter = FullFineTuning()
    params = adapter.init(KEY, CONFIG, base)
    weights, hooks = adapter.bind(CONFIG, jax.tree.map(lambda leaf: leaf + 1, params), base)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert jax.tree.map(lambda leaf: leaf.dtype, weights) == jax.tree.map(lambda leaf: leaf.dtype, base)
    assert np.array_equal(weights["norm"], (base["norm"].astype(jnp.float32) + 1).astype(jnp.bfloat16))
    assert not jax.tree.leaves(hooks)


def test_full_starts_from_a_copy_that_a_step_may_donate():
    params = FullFineTuning().init(KEY, CONFIG, FROZEN)
    assert params["norm"].unsafe_buffer_pointer() != FROZEN["norm"].unsafe_buffer_pointer()


def shapes(adapter: Adapter) -> Any:
    return jax.tree.map(lambda leaf: leaf.shape, adapter_init.abstract_params(adapter, CONFIG))


def test_shapes_of_parameters():
    assert shapes(NoAdapter()) == {}
    assert shapes(PrefixTuning()) == {"hidden": (4, 10, 16)}  # of so few layers all
    assert shapes(PrefixTuning(layers="top:2")) == {"hidden": (2, 10, 16)}
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
    slots = shapes(PrefixTuning(3, "1:3", "kv", mlp=7))
    assert slots["slots"] == (3, 16) and slots["inner"] == (16, 7) and slots["inner_bias"] == (7,)
    assert slots["keys_map"] == slots["values_map"] == (2, 7, 2, 6)
    assert slots["keys_bias"] == slots["values_bias"] == (2, 2, 6)
    assert shapes(LlamaAdapter(3)) == {"hidden": (4, 3, 16), "gate": (4, 4)}
    assert shapes(LlamaAdapter(3, "1:4", "layer")) == {"hidden": (3, 3, 16), "gate": (3,)}
    assert shapes(every.SOFT) == {"prompt": (3, 16)}
    block = {"down": (4, 5, 16), "up": (4, 16, 5)}
    assert shapes(BottleneckAdapter(5)) == {"after_feed_forward": block}
    assert shapes(BottleneckAdapter(5, "houlsby")) == {"after_attention": block, "after_feed_forward": block}
    assert shapes(IA3("k,o,up")) == {
        "k_proj": {"gain": (4, 2, 6)},
        "o_proj": {"gain": (4, 16)},
        "up_proj": {"gain": (4, 24)},
    }
    assert set(shapes(Sum((("prefix", PrefixTuning()), ("lora", LoRA()))))) == {"prefix", "lora"}


def test_random_starts():
    """Virtual tokens are normal with their std; matrices that read weights' inputs are uniform within 1/√inputs
    (Kaiming, √5); the rest is zero.
    """
    vectors = tiny.fresh(PrefixTuning(length=50, layers="all", start="random", std=0.3))["hidden"]
    assert abs(float(vectors.std()) - 0.3) < 0.02 and abs(float(vectors.mean())) < 0.02
    keys, values = tiny.fresh(PrefixTuning(length=50, layers="all", source="kv", start="random", std=0.3)).values()
    assert abs(float(keys.std()) - 0.3) < 0.02 and not np.array_equal(keys, values)
    params = tiny.fresh(LoRA(rank=40, targets="q,o,down"))
    for name, inputs in (("q_proj", 16), ("o_proj", 24), ("down_proj", 24)):
        largest = float(jnp.abs(params[name]["a"]).max())
        assert 0.97 * inputs**-0.5 < largest <= inputs**-0.5
        assert not params[name]["b"].any()
    assert not np.array_equal(params["o_proj"]["a"].ravel(), params["down_proj"]["a"].ravel())
    prompt = tiny.fresh(SoftPrompt(100, start="random", std=0.3))["prompt"]
    assert abs(float(prompt.std()) - 0.3) < 0.02 and abs(float(prompt.mean())) < 0.02
    gated = tiny.fresh(LlamaAdapter(100, std=0.3))
    assert abs(float(gated["hidden"].std()) - 0.3) < 0.02 and not gated["gate"].any()
    blocks = tiny.fresh(BottleneckAdapter(40, "houlsby"))
    for block in blocks.values():
        assert 0.97 * 16**-0.5 < float(jnp.abs(block["down"]).max()) <= 16**-0.5 and not block["up"].any()
    assert not np.array_equal(*(block["down"] for block in blocks.values()))


@pytest.mark.parametrize("adapter", every.METHODS.values(), ids=str)
def test_the_form_for_inference_computes_the_same(adapter: Adapter):
    """And has nothing left that matters only in training: it is its own form."""
    params = tiny.noisy(adapter)
    form, folded = adapters.inference_form(adapter, params, CONFIG.layers)
    assert adapters.inference_form(form, folded, CONFIG.layers)[0] == form
    np.testing.assert_allclose(tiny.adapted(form, folded), tiny.adapted(adapter, params), rtol=0, atol=1e-5)


def test_the_form_for_inference_leaves_out_what_training_chose():
    def form(adapter: Adapter) -> Adapter:
        return adapters.inference_form(adapter, tiny.noisy(adapter), CONFIG.layers)[0]

    assert form(PrefixTuning(3, "top:2", mlp=5, std=0.3)) == form(PrefixTuning(3, "2:4", start="random"))
    assert form(LlamaAdapter(3, "top:2", std=0.3)) == form(LlamaAdapter(3, "2:4", start="vocabulary"))
    assert form(SoftPrompt(3)) == form(SoftPrompt(3, start="random", std=0.3))
    assert form(LoRA(2, 8.0, "q,v", 0.1)) == form(LoRA(2, 1.0, "v,q")) != form(LoRA(3, 8.0, "q,v"))
    assert form(IA3("k,up")) == form(IA3("up,k")) != form(IA3("k"))


@pytest.mark.parametrize("adapter", every.METHODS.values(), ids=str)
def test_a_prompt_is_as_long_as_it_says(adapter: Adapter):
    prompt = adapter.bind(CONFIG, tiny.noisy(adapter), FROZEN)[1].prompt
    assert adapter.prompt_length == (0 if prompt is None else prompt.shape[0])


@pytest.mark.parametrize("adapter", every.METHODS.values(), ids=str)
def test_follows_the_protocol(adapter: Adapter):
    """A method is hashable, holds no arrays and prints as its own configuration (law 2)."""
    assert isinstance(adapter, Adapter) and hash(adapter) == hash(adapter)
    assert eval(repr(adapter), dict(vars(adapters))) == adapter


def test_every_method_is_tested():
    """The list that the laws are tested on has every method."""
    assert {type(adapter) for adapter in every.METHODS.values()} == {*adapters.METHODS, Sum}
