"""The laws of the methods for decoders of any shape, not only for the tiny one (law 9)."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from jaxprefix.errors import InputError
from jaxprefix.io.messages import short_repr
from jaxprefix.models import adapter_init
from jaxprefix.models.adapters import (
    IA3,
    Adapter,
    BottleneckAdapter,
    LlamaAdapter,
    LoRA,
    NoAdapter,
    PrefixTuning,
    SoftPrompt,
)
from jaxprefix.models.config import DecoderConfig, LayerKind, Rope, layer_range
from jaxprefix.models.decoder import Batch
from jaxprefix.models.hooks import NEVER

# Each example compiles programs of its own: few, always the same, and a failing one is not made smaller for minutes.
PHASES = (Phase.explicit, Phase.generate)
few = settings(max_examples=6, deadline=None, derandomize=True, database=None, phases=PHASES)
many = settings(max_examples=200, deadline=None, derandomize=True, database=None)
FEW_TOKENS = 6


FAMILIES: list[dict[str, Any]] = [
    {},
    {"qkv_biases": True},
    {"head_norms": True, "query_scale": 1.5},
    {"kinds": [LayerKind(None, None), LayerKind(Rope(100.0), 2)]},
    {
        "head_norms": True,
        "norms": (
            "input_layernorm",
            "post_attention_layernorm",
            "pre_feedforward_layernorm",
            "post_feedforward_layernorm",
        ),
        "norm_offset": 1.0,
        "activation": "gelu_tanh",
        "embedding_scale": 3.0,
        "kinds": [LayerKind(Rope(50.0), 3), LayerKind(Rope(1000.0), None)],
    },
]


@st.composite
def configs(draw: st.DrawFn, window: bool = True) -> DecoderConfig:
    """Any ratio of heads to key heads; a hidden size that heads of the head size do not make up."""
    kv_heads, groups, size = draw(st.integers(1, 3)), draw(st.integers(1, 3)), 2 * draw(st.integers(1, 4))
    heads, layers = kv_heads * groups, draw(st.integers(1, 4))
    family = dict(draw(st.sampled_from(FAMILIES)))
    kinds = [kind if window else LayerKind(kind.rope, None) for kind in family.pop("kinds", [])]
    return DecoderConfig(
        vocabulary_size=draw(st.integers(5, 40)),
        hidden_size=draw(st.integers(4, 20).filter(lambda width: width != heads * size)),
        intermediate_size=draw(st.integers(1, 24)),
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_size=size,
        norm_epsilon=1e-5,
        rope=Rope(draw(st.sampled_from([100.0, 10_000.0]))),
        max_positions=64,
        tied=draw(st.booleans()),
        window=draw(st.none() | st.integers(1, 4)) if window else None,
        layer_kinds=tuple(draw(st.sampled_from(kinds)) for _ in range(layers if kinds else 0)),
        **family,
    )


@st.composite
def ranges(draw: st.DrawFn, layers: int) -> str:
    first = draw(st.integers(0, layers - 1))
    last = draw(st.integers(first + 1, layers))
    return draw(st.sampled_from(["all", "top", f"top:{last - first}", f"{first}:{last}"]))


def batch(config: DecoderConfig, seed: int) -> tuple[Batch, np.ndarray]:
    """Two rows of unequal length, padded on the right, and where their tokens are real."""
    random = np.random.default_rng(seed)
    real = np.arange(FEW_TOKENS) < np.array([[FEW_TOKENS], [random.integers(1, FEW_TOKENS)]])
    tokens = random.integers(0, config.vocabulary_size, real.shape)
    return tiny.batch(tokens, np.where(real, np.arange(FEW_TOKENS), NEVER)), real


def run(
    config: DecoderConfig, frozen: Any, inputs: Batch, adapter: Adapter, params: Any, rows: Any = None
) -> np.ndarray:
    weights, hooks = adapter.bind(config, params, frozen, adapter_ids=rows)
    return tiny.logits(hooks, inputs, config, weights)


@few
@given(data=st.data())
def test_fresh_is_the_base_bit_for_bit(data: st.DataObject):
    config = data.draw(configs())
    frozen, (rows, _) = tiny.weights(config), batch(config, 1)
    layers, length = data.draw(ranges(config.layers)), data.draw(st.integers(1, 3))
    made: list[Adapter] = [
        NoAdapter(),
        LoRA(length, targets=data.draw(st.sampled_from(["q", "k,o", "v,down", "gate,up"]))),
        LlamaAdapter(length, layers, data.draw(st.sampled_from(["head", "layer"]))),
        BottleneckAdapter(length, data.draw(st.sampled_from(["pfeiffer", "houlsby"]))),
        IA3(data.draw(st.sampled_from(["k,v,up", "q,o", "gate,down"]))),
    ]
    adapter = data.draw(st.sampled_from(made))
    params = adapter.init(jax.random.key(0), config, frozen)
    found, base = run(config, frozen, rows, adapter, params), tiny.logits(None, rows, config, frozen)
    if config.is_llama:
        assert np.array_equal(found, base)
    else:  # XLA fuses more norms, and not in the same way in the loop below an adapter as in the loop of the base
        np.testing.assert_allclose(found, base, rtol=0, atol=2e-6)


@few
@given(data=st.data())
def test_hidden_is_kv_of_its_projections(data: st.DataObject):
    config = data.draw(configs())
    frozen, (rows, real) = tiny.weights(config), batch(config, 2)
    layers, length = data.draw(ranges(config.layers)), data.draw(st.integers(1, 3))
    softmax: Any = data.draw(st.sampled_from(["joint", "split"]))
    hidden, kv = (PrefixTuning(length, layers, source, softmax) for source in ("hidden", "kv"))
    vectors = tiny.noisy(hidden, 1.0, config, frozen)["hidden"]
    first, last = layer_range(layers, config.layers)
    weights = {name: np.asarray(weight[first:last], np.float64) for name, weight in frozen["layers"].items()}
    learnt = np.asarray(vectors, np.float64)
    if config.norm_offset:  # Gemma: in units of the norm
        factors = config.norm_offset + weights["input_layernorm"]
        learnt = learnt * np.sqrt(np.mean(factors**2, axis=-1))[:, None, None]
    keys, values = (np.einsum("lpd,lkhd->lpkh", learnt, weights[name]) for name in ("k_proj", "v_proj"))
    if config.qkv_biases:
        keys, values = keys + weights["k_proj_bias"][:, None], values + weights["v_proj_bias"][:, None]
    if config.head_norms:
        keys = keys / np.sqrt(np.mean(keys**2, axis=-1, keepdims=True) + 1e-5)
        keys = keys * (config.norm_offset + weights["k_norm"])[:, None, None]
    keys, values = jnp.asarray(keys, jnp.float32), jnp.asarray(values, jnp.float32)
    found = run(config, frozen, rows, hidden, {"hidden": vectors})
    other = run(config, frozen, rows, kv, {"keys": keys, "values": values})
    np.testing.assert_allclose(found[real], other[real], rtol=0, atol=1e-4)


@few
@given(data=st.data())
def test_a_text_as_prompt_or_as_keys_and_values_is_the_text_in_front(data: st.DataObject):
    """As soft prompt under any window; as kv prefix where attention is full."""
    soft = data.draw(st.booleans())
    config = data.draw(configs(window=soft))
    frozen = tiny.weights(config)
    text = np.array(data.draw(st.lists(st.integers(0, config.vocabulary_size - 1), min_size=1, max_size=4)))
    tokens = np.random.default_rng(3).integers(0, config.vocabulary_size, FEW_TOKENS)
    made = SoftPrompt(len(text)) if soft else PrefixTuning(len(text), "all", "kv", start="vocabulary")
    fresh = partial(adapter_init.init_params, made, jax.random.key(0), config, tokens=lambda _, __: text.tolist())
    params = jax.jit(lambda frozen: fresh(frozen=frozen))(frozen)
    found = run(config, frozen, tiny.row(tokens), made, params)[0]
    whole = tiny.logits(None, tiny.row([*text, *tokens]), config, frozen)[0]
    np.testing.assert_allclose(found, whole[len(text) :], rtol=0, atol=1e-4)


@few
@given(data=st.data())
def test_rows_are_what_each_adapter_does_alone(data: st.DataObject):
    config = data.draw(configs())
    frozen, (rows, real) = tiny.weights(config), batch(config, 4)
    layers, length = data.draw(ranges(config.layers)), data.draw(st.integers(1, 3))
    adapter: Any = data.draw(
        st.sampled_from(
            [PrefixTuning(length, layers), LlamaAdapter(length, layers), SoftPrompt(length, start="random")]
        )
    )
    several = tiny.several(adapter, 3, config, frozen)
    chosen = data.draw(st.lists(st.integers(0, 2), min_size=2, max_size=2))
    found = run(config, frozen, rows, adapter, tiny.together(several), rows=jnp.array(chosen))
    for row, number in enumerate(chosen):
        alone = run(config, frozen, rows, adapter, several[number])
        np.testing.assert_allclose(found[row][real[row]], alone[row][real[row]], rtol=0, atol=1e-4)


@many
@given(layers=st.integers(1, 40), data=st.data())
def test_a_range_of_layers_is_inside_the_model_and_never_empty(layers: int, data: st.DataObject):
    first = data.draw(st.integers(0, layers - 1))
    last = data.draw(st.integers(first + 1, layers))
    assert layer_range(f"{first}:{last}", layers) == (first, last)
    assert layer_range(f"top:{last}", layers) == (layers - last, layers)
    assert layer_range("all", layers) == (0, layers) == layer_range(f"top:{layers}", layers)
    low, high = layer_range("top", layers)
    assert high == layers and low == layers // 16


@many
@given(layers=st.integers(1, 40), text=st.text("0123456789:top- al", max_size=6))
def test_any_other_range_of_layers_is_refused(layers: int, text: str):
    try:
        first, last = layer_range(text, layers)
    except ValueError as error:
        assert short_repr(text) in str(error) and str(layers) in str(error)
    else:
        assert 0 <= first < last <= layers
        assert text in ("all", "top") or text.replace("top", "").replace(":", "").isdecimal()


@pytest.mark.parametrize(
    "text", ["", "top:0", "top:", ":2", "2:", "0:0", "3:2", "0:5", "-1:2", "top:-1", "1:2:3", "²:3"]
)
def test_ranges_that_name_no_layers(text: str):
    with pytest.raises(InputError, match="of a model of 4; expected all, top, top:N or FIRST:END, such as 2:4"):
        layer_range(text, replace(tiny.CONFIG, layers=4).layers)
