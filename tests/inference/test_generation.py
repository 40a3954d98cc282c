"""The cache is no approximation: generation and choices with it equal the whole text run anew, whatever the adapter."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
from models import every, tiny

from benchmarks import decoding
from jaxprefix.models import decoder, scoring
from jaxprefix.models.adapters import Adapter, BottleneckAdapter, FullFineTuning, LlamaAdapter, LoRA, PrefixTuning, Sum
from jaxprefix.models.config import DecoderConfig, LayerKind, Rope
from jaxprefix.models.decoder import Batch
from jaxprefix.models.hooks import NEVER, Hooks

LLAMA = DecoderConfig.parse(small.SIZES | {"vocab_size": 97})
MISTRAL = DecoderConfig.parse(
    small.SIZES | {"vocab_size": 97, "architectures": ["MistralForCausalLM"], "sliding_window": 6}
)
GEMMA = replace(
    LLAMA,
    head_norms=True,
    norms=tiny.GEMMA_NORMS,
    norm_offset=1.0,
    activation="gelu_tanh",
    embedding_scale=2.0,
    window=6,
    layer_kinds=tuple(LayerKind(Rope(1e4), 6) if layer % 2 else LayerKind(None, None) for layer in range(LLAMA.layers)),
)
LENGTHS, NEW, END = (12, 7, 1), 10, 96
SPACE = max(LENGTHS) + NEW
GENERATE = jax.jit(decoding.generate, static_argnums=(0, 4, 5))
CHOICES = jax.jit(scoring.choices, static_argnums=0)


def weights(config: DecoderConfig) -> Any:
    """Large enough that every token matters."""
    frozen = jax.jit(decoder.init, static_argnums=1)(jax.random.key(7), config)
    return jax.tree.map(lambda leaf: leaf if leaf.ndim < 2 or bool((leaf == 1).all()) else 10 * leaf, frozen)


CASES = {name: (LLAMA, adapter) for name, adapter in every.METHODS.items()} | {
    "mistral prefix": (MISTRAL, every.METHODS["prefix"]),
    "mistral soft-prompt": (MISTRAL, every.METHODS["soft-prompt"]),
    "gemma prefix": (GEMMA, every.METHODS["prefix"]),
    "gemma all": (GEMMA, every.ALL_AT_ONCE),
}


# The other cases are the same seams alone, or together with others.
FEW = ("mistral prefix", "gemma prefix", "llama-adapter+lora", "bottleneck+soft-prompt")


def few(names: Iterable[str]) -> list[Any]:
    return [name if name in FEW else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.fixture(scope="module", params=few(CASES))
def case(request: pytest.FixtureRequest) -> tuple[DecoderConfig, Any, Hooks]:
    config, adapter = CASES[request.param]
    frozen = weights(config)
    params = tiny.noisy(adapter, 0.5, config, frozen)
    if adapter == FullFineTuning():
        params = jax.tree.map(lambda base, noise: base + 0.2 * noise, frozen, params)
    own, hooks = adapter.bind(config, params, frozen)
    base = whole_logits(config, frozen, Hooks())(PROMPTS[0])
    change = np.abs(whole_logits(config, own, hooks)(PROMPTS[0]) - base).max()
    assert change > 0.2 if request.param != "none" else change == 0
    return config, own, hooks


RANDOM = np.random.default_rng(0)
PROMPTS = [RANDOM.integers(2, 90, length) for length in LENGTHS]


def batch() -> Batch:
    """The prompts right-padded, with tokens that would matter if they were read."""
    tokens = RANDOM.integers(2, 90, (len(LENGTHS), max(LENGTHS)))
    positions = np.full(tokens.shape, NEVER)
    for row, prompt in enumerate(PROMPTS):
        tokens[row, : len(prompt)], positions[row, : len(prompt)] = prompt, np.arange(len(prompt))
    return Batch(jnp.array(tokens, jnp.int32), jnp.array(positions, jnp.int32))


@partial(jax.jit, static_argnums=0)
def _whole(config: DecoderConfig, frozen: Any, hooks: Hooks, tokens: jax.Array) -> jax.Array:
    rows = Batch(tokens[None], jnp.arange(SPACE)[None])
    return decoder.logits(frozen, decoder.hidden_states(config, frozen, rows, hooks))[0]


def whole_logits(config: DecoderConfig, frozen: Any, hooks: Hooks) -> Callable[[Any], np.ndarray]:
    """One row without a cache: `[T, V]` of all its tokens at once."""

    def run(tokens: Any) -> np.ndarray:
        padded = np.pad(np.asarray(tokens, np.int32), (0, SPACE - len(tokens)))  # behind the text: never looked at
        return np.asarray(_whole(config, frozen, hooks, jnp.array(padded)))[: len(tokens)]

    return run


def test_generation_with_a_cache_equals_generation_without(case: tuple[DecoderConfig, Any, Hooks]):
    """Rows of different lengths in one batch; each row's text is run anew, alone, for every token."""
    config, frozen, hooks = case
    run = whole_logits(config, frozen, hooks)
    expected = []
    for prompt in PROMPTS:
        text = prompt.tolist()
        for _ in range(NEW):
            text.append(int(run(text)[-1].argmax()))
        expected.append(text[len(prompt) :])
    # One row meets it early, another one late or never. What follows an end is no text.
    end = next(token for token in expected[1] if any(token not in other[:7] for other in expected))
    never = min(set(range(config.vocabulary_size)) - {token for text in expected for token in text})
    tokens, counts = jax.device_get(GENERATE(config, frozen, batch(), hooks, NEW, (never, end)))
    for row, wanted in enumerate(expected):
        length = wanted.index(end) if end in wanted else NEW
        assert counts[row] == length and tokens[row, :length].tolist() == wanted[:length], f"row {row}"
        assert (tokens[row, length:] == never).all()
    assert counts[1] < NEW and max(counts) > 6 and len({token for text in expected for token in text}) > 3


@pytest.mark.parametrize("case", ["prefix"], indirect=True)
def test_generation_of_one_token(case: tuple[DecoderConfig, Any, Hooks]):
    config, frozen, hooks = case
    tokens, counts = jax.device_get(GENERATE(config, frozen, batch(), hooks, 1, (END,)))
    run = whole_logits(config, frozen, hooks)
    assert tokens[:, 0].tolist() == [run(prompt)[-1].argmax() for prompt in PROMPTS] and counts.tolist() == [1] * 3


def draw_choices(longest: int) -> list[list[list[int]]]:
    """Four choices of 1 to `longest` tokens for each prompt."""
    random = np.random.default_rng(1)
    lengths = random.integers(1, longest + 1, (len(PROMPTS), 4))
    lengths[0] = [min(number, longest) for number in (1, 2, 3, 4)]
    return [[random.integers(2, 90, length).tolist() for length in row] for row in lengths]


def scores(
    config: DecoderConfig, frozen: Any, hooks: Hooks, rows: list[list[list[int]]]
) -> tuple[np.ndarray, np.ndarray]:
    tokens, lengths = tiny.packed(rows)
    return jax.device_get(CHOICES(config, frozen, batch(), hooks, tokens, lengths))


def assert_choices(case: tuple[DecoderConfig, Any, Hooks], longest: int) -> None:
    """Each sum equals log-softmax of the full logits of prompt and choice; greedy choices are told from others."""
    config, frozen, hooks = case
    run, rows = whole_logits(config, frozen, hooks), draw_choices(longest)
    for prompt, choices in zip(PROMPTS, rows, strict=True):
        for choice in choices[1:3]:  # the second is the likeliest continuation, the third so but its end
            for place in range(len(choice)):
                choice[place] = int(run([*prompt, *choice[:place]])[-1].argmax())
        choices[2][-1] = 0
    found, greedy = scores(config, frozen, hooks, rows)
    for row, choice in np.ndindex(*found.shape):
        answer, prompt = rows[row][choice], PROMPTS[row]
        logits = run([*prompt, *answer]).astype(np.float64)[len(prompt) - 1 : -1]
        each = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        expected = sum(line[token] for line, token in zip(each, answer, strict=True))
        assert float(found[row, choice]) == pytest.approx(expected, abs=1e-4), f"choice {choice}, row {row}"
        assert greedy[row, choice] == all(each.argmax(-1) == answer)
    assert greedy[:, 1].all() and not greedy[:, 2:].any()


def test_choices_over_a_shared_prompt(case: tuple[DecoderConfig, Any, Hooks]):
    assert_choices(case, longest=4)


@pytest.mark.parametrize("case", few(("none", "gemma prefix")), indirect=True)
def test_choices_of_one_token(case: tuple[DecoderConfig, Any, Hooks]):
    assert_choices(case, longest=1)


SOFT, GATED = every.SOFT, LlamaAdapter(4, "1:3")
MIXED: dict[str, Adapter] = {
    "prefix": PrefixTuning(4, "1:3"),
    "llama-adapter": GATED,
    "soft-prompt": SOFT,
    "lora": LoRA(2),
    "lora+bottleneck": Sum((("lora", LoRA(2, targets="v,down")), ("bottleneck", BottleneckAdapter(3)))),
    "all three": Sum((("soft-prompt", SOFT), ("prefix", PrefixTuning(4, "all", "kv")), ("llama-adapter", GATED))),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if "+" in name or " " in name else pytest.mark.slow) for name in MIXED]
)
def test_one_batch_of_several_adapters(name: str):
    """Each row continues, and scores its choices, as with its own adapter alone: the cache holds one prefix a row."""
    adapter, frozen, rows = MIXED[name], weights(LLAMA), (2, 0, 1)
    several = tiny.several(adapter, 3, LLAMA, frozen)
    mixed = adapter.bind(LLAMA, tiny.together(several), frozen, adapter_ids=jnp.array(rows))[1]
    alone = [adapter.bind(LLAMA, params, frozen)[1] for params in several]
    tokens, _ = jax.device_get(GENERATE(LLAMA, frozen, batch(), mixed, NEW, (END,)))
    texts = [jax.device_get(GENERATE(LLAMA, frozen, batch(), hooks, NEW, (END,)))[0] for hooks in alone]
    drawn = draw_choices(4)
    found = scores(LLAMA, frozen, mixed, drawn)[0]
    each = [scores(LLAMA, frozen, hooks, drawn)[0] for hooks in alone]
    for row, chosen in enumerate(rows):
        assert np.array_equal(tokens[row], texts[chosen][row])
        np.testing.assert_allclose(found[row], each[chosen][row], rtol=0, atol=2e-5)
        for other in {0, 1, 2} - {chosen}:
            assert not np.array_equal(tokens[row], texts[other][row])
