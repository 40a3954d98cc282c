"""Virtual tokens may start from a text: a soft prompt and a kv prefix then equal the base with that text in front (law
9).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import every
import jax
import jax.numpy as jnp
import naive
import numpy as np
import pytest
import tiny

from jaxprefix.models import adapter_init
from jaxprefix.models.adapters import Adapter, EncodedPrompt, LlamaAdapter, LoRA, PrefixTuning, SoftPrompt, Sum
from jaxprefix.models.config import DecoderConfig

CONFIG, FROZEN, KEY = tiny.CONFIG, tiny.FROZEN, jax.random.key(0)
MISTRAL = replace(CONFIG, window=3)
TEXT = np.array([17, 3, 52, 8, 8])
WORDS = "text:five tokens of an invented text"
KV = PrefixTuning(len(TEXT), "all", "kv", start=WORDS)
SOFT = SoftPrompt(len(TEXT), start=WORDS)
READ = jax.jit(adapter_init.encode_prompt, static_argnums=0)


def tokens(words: str, length: int) -> Sequence[int]:
    """A tokenizer that knows one text and its own vocabulary."""
    assert words in (WORDS, "vocabulary") and length <= len(TEXT)
    return TEXT.tolist() if words == WORDS else TEXT[::-1][:length].tolist()


def fresh(adapter: Adapter, config: DecoderConfig = CONFIG) -> Any:
    return jax.jit(lambda key: adapter_init.init_params(adapter, key, config, FROZEN, tokens))(KEY)


def recorded(text: np.ndarray = TEXT) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the naive decoder's attention reads, its keys (turned so that the last stands at -1) and its values."""
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    naive.logits(CONFIG, FROZEN, text, record=found)
    inputs, keys, values = (np.stack(parts) for parts in zip(*found, strict=True))
    return inputs, np.stack([naive.rope(CONFIG, key, first=-len(text)) for key in keys]), values


@pytest.mark.parametrize("config", [CONFIG, MISTRAL], ids=["llama", "mistral"])
def test_a_text_is_read_as_the_naive_decoder_reads_it(config: DecoderConfig):
    """With full attention, also where the model has a window: every query sees the whole of a prefix (law 4)."""
    inputs, keys, values = recorded()
    text = READ(config, FROZEN, jnp.array(TEXT))
    assert np.array_equal(text.embeddings, FROZEN["embed_tokens"][TEXT])
    for name, wanted in (("inputs", inputs), ("keys", keys), ("values", values)):
        assert np.abs(wanted).max() > 1
        np.testing.assert_allclose(getattr(text, name), wanted, rtol=0, atol=2e-5, err_msg=name)


def in_front(rows: np.ndarray, config: DecoderConfig) -> np.ndarray:
    """The base's logits at a row behind the text."""
    return tiny.logits(rows=tiny.row(np.concatenate([TEXT, rows])), config=config)[0, len(TEXT) :]


@pytest.mark.parametrize(
    ("adapter", "config"), [(SOFT, CONFIG), (SOFT, MISTRAL), (KV, CONFIG)], ids=["soft", "soft mistral", "kv"]
)
def test_starting_from_a_text_is_the_base_with_that_text_in_front(adapter: Adapter, config: DecoderConfig):
    params = fresh(adapter, config)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    found, base = tiny.adapted(adapter, params, config), tiny.logits(config=config)
    for row, length in enumerate(tiny.LENGTHS):
        wanted = in_front(tiny.TOKENS[row, :length], config)
        np.testing.assert_allclose(found[row, :length], wanted, rtol=0, atol=1e-4)
        naively = naive.logits(config, FROZEN, np.concatenate([TEXT, tiny.TOKENS[row, :length]]))[len(TEXT) :]
        np.testing.assert_allclose(found[row, :length], naively, rtol=0, atol=2e-4)
        assert np.abs(wanted - base[row, :length]).max() > 0.1


def test_a_kv_prefix_under_a_window_is_the_text_seen_by_all():
    """The text in front would be outside the window of most queries; its keys and values as a prefix never are."""
    params = fresh(KV, MISTRAL)
    _, keys, values = recorded()
    extras = {layer: naive.Extras(prefix=(keys[layer], values[layer])) for layer in range(CONFIG.layers)}
    found = tiny.adapted(KV, params, MISTRAL)[0, : tiny.LENGTHS[0]]
    wanted = naive.logits(MISTRAL, FROZEN, tiny.TOKENS[0, : tiny.LENGTHS[0]], extras)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-4)
    assert np.abs(found - in_front(tiny.TOKENS[0, : tiny.LENGTHS[0]], MISTRAL)).max() > 0.1


@pytest.mark.parametrize("layers", ["all", "1:3", "top:1"])
def test_only_the_adapted_layers_start_from_a_text(layers: str):
    inputs, keys, values = recorded()
    part = {"all": slice(0, 4), "1:3": slice(1, 3), "top:1": slice(3, 4)}[layers]
    kv = fresh(replace(KV, layers=layers))
    np.testing.assert_allclose(kv["keys"], keys[part], rtol=0, atol=2e-5)
    np.testing.assert_allclose(kv["values"], values[part], rtol=0, atol=2e-5)
    hidden = fresh(PrefixTuning(len(TEXT), layers, start=WORDS))
    np.testing.assert_allclose(hidden["hidden"], inputs[part], rtol=0, atol=2e-5)
    gated = fresh(LlamaAdapter(len(TEXT), layers, start=WORDS))
    assert np.array_equal(gated["hidden"], hidden["hidden"]) and not gated["gate"].any()


def test_each_member_of_a_sum_starts_from_its_own_text():
    drawn = LlamaAdapter(len(TEXT), "all", start="vocabulary")
    adapter = Sum((("prefix", KV), ("llama-adapter", drawn), ("lora", LoRA(2)), ("soft-prompt", SOFT)))
    params = fresh(adapter)
    assert np.array_equal(params["prefix"]["keys"], fresh(KV)["keys"])
    np.testing.assert_allclose(params["llama-adapter"]["hidden"], recorded(TEXT[::-1])[0], rtol=0, atol=2e-5)
    assert np.array_equal(params["soft-prompt"]["prompt"], FROZEN["embed_tokens"][TEXT])
    assert set(params["lora"]) == {"q_proj", "k_proj", "v_proj"}


def test_a_random_start_needs_no_tokens():
    def never(_: str, __: int) -> Sequence[int]:
        raise AssertionError

    split = PrefixTuning(softmax="split")  # whose default is a random start
    for adapter in (split, PrefixTuning(start="random"), LlamaAdapter(start="random"), SoftPrompt(start="random")):
        jax.eval_shape(lambda adapter=adapter: adapter_init.init_params(adapter, KEY, CONFIG, FROZEN, never))


@pytest.mark.parametrize("adapter", [*every.METHODS.values(), KV, SOFT], ids=str)
def test_abstract_parameters_have_the_shapes_of_fresh_ones(adapter: Adapter):
    made = jax.eval_shape(lambda: adapter_init.init_params(adapter, KEY, CONFIG, FROZEN, tokens))
    assert adapter_init.abstract_params(adapter, CONFIG) == made
    assert {leaf.dtype for leaf in jax.tree.leaves(made)} <= {jnp.dtype("float32")}


def test_a_text_in_bfloat16_starts_float32_parameters():
    rounded = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), FROZEN)
    text: EncodedPrompt = READ(CONFIG, rounded, jnp.array(TEXT))
    assert text.embeddings.dtype == text.values.dtype == jnp.bfloat16
    for adapter in (KV, SOFT, PrefixTuning(len(TEXT), start=WORDS)):
        params = adapter.init(KEY, CONFIG, rounded, lambda *_: text)
        assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
