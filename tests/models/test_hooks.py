"""Every seam of the decoder equals its formula, written a second time in naive.py (law 9); an empty one is the base."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import naive
import numpy as np
import pytest
import tiny
from jaxtyping import TypeCheckError

from jaxprefix.errors import InputError
from jaxprefix.models.attention import attention
from jaxprefix.models.hooks import ALWAYS, NEVER, Bottleneck, Gated, Hooks, LowRank, Prefix, merge, visible
from jaxprefix.models.parameters import PROJECTIONS

CONFIG, LAYERS, SLOTS = tiny.CONFIG, tiny.CONFIG.layers, 3
KV = (CONFIG.kv_heads, CONFIG.head_size)


def left(rows: np.ndarray) -> Any:
    """The tiny batch's rows with their padding in front."""
    lengths = tiny.REAL.sum(1)
    tokens, positions = np.zeros_like(rows), np.full_like(rows, NEVER)
    for index, length in enumerate(lengths):
        tokens[index, -length:], positions[index, -length:] = rows[index, :length], np.arange(length)
    return tiny.batch(tokens, positions)


def assert_rows(
    hooks: Hooks, expected: Callable[[np.ndarray], np.ndarray], config: Any = CONFIG, frozen: Any = tiny.FROZEN
) -> None:
    """Each row of the batch, padded on either side, has the logits that `expected` gives for its tokens alone."""
    base = tiny.logits(config=config, frozen=frozen)
    for side, rows in (("right", tiny.batch()), ("left", left(tiny.TOKENS))):
        found = tiny.logits(hooks, rows, config, frozen)
        for index, length in enumerate(tiny.LENGTHS):
            real = found[index, :length] if side == "right" else found[index, -length:]
            wanted = expected(tiny.TOKENS[index, :length])
            assert np.abs(wanted - base[index, :length]).max() > 0.1 or hooks == Hooks()
            np.testing.assert_allclose(real, wanted, rtol=0, atol=2e-4, err_msg=f"row {index}, {side}-padded")


def slots(seed: int) -> tuple[Any, Any]:
    return tiny.normal(seed, LAYERS, SLOTS, *KV), tiny.normal(seed + 1, LAYERS, SLOTS, *KV)


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("tied", [False, True])
def test_the_base(window: int | None, tied: bool):
    config = replace(CONFIG, window=window, tied=tied)
    frozen = {name: leaf for name, leaf in tiny.FROZEN.items() if name != "lm_head" or not tied}
    assert_rows(Hooks(), lambda tokens: naive.logits(config, frozen, tokens), config, frozen)


def test_the_naive_window_matters():
    tokens = tiny.TOKENS[0]
    full, narrow = (naive.logits(replace(CONFIG, window=w), tiny.FROZEN, tokens) for w in (None, 3))
    assert np.array_equal(full[:3], narrow[:3]) and np.abs(full[3:] - narrow[3:]).max() > 0.1


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("adapted", [(0, 1, 2, 3), (2, 3), (1, 2)])
def test_prefix(adapted: tuple[int, ...], window: int | None):
    """A prefix joins the softmax of its layers; every query attends to it, whatever the window (law 4)."""
    config = replace(CONFIG, window=window)
    keys, values = slots(1)
    positions = np.array([[ALWAYS if layer in adapted else NEVER] * SLOTS for layer in range(LAYERS)])
    hooks = Hooks(first_adapted_layer=adapted[0], prefix=Prefix(keys, values, jnp.array(positions)))
    extras = {layer: naive.Extras(prefix=(naive.wide(keys[layer]), naive.wide(values[layer]))) for layer in adapted}
    assert_rows(hooks, lambda tokens: naive.logits(config, tiny.FROZEN, tokens, extras), config)


def test_gated():
    """A softmax of its own, multiplied by one gate per head and added to the output for the text."""
    keys, values = slots(3)
    gate = tiny.normal(5, LAYERS, CONFIG.heads)
    extras = {
        layer: naive.Extras(gated=(naive.wide(keys[layer]), naive.wide(values[layer]), naive.wide(gate[layer])))
        for layer in range(LAYERS)
    }
    assert_rows(
        Hooks(gated=Gated(keys, values, gate)), lambda tokens: naive.logits(CONFIG, tiny.FROZEN, tokens, extras)
    )


@pytest.mark.parametrize("seam", ["after_attention", "after_feed_forward"])
def test_bottleneck(seam: str):
    down, up = tiny.normal(6, LAYERS, 5, CONFIG.hidden_size), tiny.normal(7, LAYERS, CONFIG.hidden_size, 5)

    def block(layer: int) -> Callable[[np.ndarray], np.ndarray]:
        def residual(x: np.ndarray) -> np.ndarray:
            inner = x @ naive.wide(down[layer]).T
            return x + inner / (1 + np.exp(-inner)) @ naive.wide(up[layer]).T

        return residual

    extras = {layer: naive.Extras(**{seam: block(layer)}) for layer in range(LAYERS)}
    hooks = Hooks(**{seam: Bottleneck(down, up)})
    assert_rows(hooks, lambda tokens: naive.logits(CONFIG, tiny.FROZEN, tokens, extras))


def test_delta():
    """scale · b (a x) beside every projection."""
    delta: dict[str, LowRank] = {}
    for seed, name in enumerate(PROJECTIONS):
        dims = tiny.FROZEN["layers"][name].shape[1:]
        cut = 2 if name in ("q_proj", "k_proj", "v_proj") else 1
        a = tiny.normal(seed, LAYERS, 2, *dims[cut:], std=0.3)
        delta[name] = LowRank(a, tiny.normal(seed + 10, LAYERS, *dims[:cut], 2, std=0.3), scale=1.5)

    def term(name: str, layer: int) -> Callable[[np.ndarray], np.ndarray]:
        a, b = naive.wide(delta[name].a[layer]), naive.wide(delta[name].b[layer])
        over = list(range(1 - a.ndim, 0))
        return lambda x: 1.5 * np.tensordot(x, np.tensordot(b, a, 1), (over, over))

    extras = {layer: naive.Extras(added={name: term(name, layer) for name in delta}) for layer in range(LAYERS)}
    assert_rows(Hooks(delta=delta), lambda tokens: naive.logits(CONFIG, tiny.FROZEN, tokens, extras))


@pytest.mark.parametrize("per_row", [False, True])
def test_gain(per_row: bool):
    """A factor on each output of every projection, after its delta; for all rows, or one for each."""
    gain, delta = {}, LowRank(tiny.normal(1, LAYERS, 2, 16), tiny.normal(2, LAYERS, 24, 2), scale=0.3)
    for seed, name in enumerate(PROJECTIONS):
        outputs = tiny.FROZEN["layers"][name].shape[1 : -2 if name == "o_proj" else -1]
        gain[name] = 1 + tiny.normal(seed, LAYERS, *([2] if per_row else []), *outputs, std=0.3)
    hooks = Hooks(gain=gain, delta={"up_proj": delta})
    found = tiny.logits(hooks)

    def term(layer: int) -> Callable[[np.ndarray], np.ndarray]:
        return lambda x: 0.3 * x @ naive.wide(delta.a[layer]).T @ naive.wide(delta.b[layer]).T

    for row, length in enumerate(tiny.LENGTHS):
        extras = {
            layer: naive.Extras(
                added={"up_proj": term(layer)},
                gain={name: naive.wide(leaf[layer, row] if per_row else leaf[layer]) for name, leaf in gain.items()},
            )
            for layer in range(LAYERS)
        }
        expected = naive.logits(CONFIG, tiny.FROZEN, tiny.TOKENS[row, :length], extras)
        np.testing.assert_allclose(found[row, :length], expected, rtol=0, atol=2e-4)
        assert np.abs(tiny.logits(Hooks(delta=hooks.delta))[row, :length] - expected).max() > 0.1


@pytest.mark.parametrize("batched", [False, True])
def test_prompt_is_text_in_front(batched: bool):
    """Embeddings of a text as prompt: the base with that text in front (its own positions are not returned)."""
    text = np.array([5, 1, 44, 7])
    prompt = tiny.FROZEN["embed_tokens"][text]
    hooks = Hooks(prompt=jnp.stack([prompt] * 2) if batched else prompt)

    def expected(tokens: np.ndarray) -> np.ndarray:
        return naive.logits(CONFIG, tiny.FROZEN, np.concatenate([text, tokens]))[len(text) :]

    assert_rows(hooks, expected)


UP_ZERO = Bottleneck(tiny.normal(6, LAYERS, 5, 16), jnp.zeros((LAYERS, 16, 5)))
EMPTY = {
    "gate 0": Hooks(gated=Gated(*slots(3), jnp.zeros((LAYERS, CONFIG.heads)))),
    "up 0 after attention": Hooks(after_attention=UP_ZERO),
    "up 0 after feed-forward": Hooks(after_feed_forward=UP_ZERO),
    "gain 1": Hooks(gain={"v_proj": jnp.ones((LAYERS, *KV)), "down_proj": jnp.ones((LAYERS, 16))}),
    "no prefix in any layer": Hooks(prefix=Prefix(*slots(3), jnp.full((LAYERS, SLOTS), NEVER))),
}


@pytest.mark.parametrize("name", EMPTY)
def test_an_empty_hook_is_the_base(name: str):
    """Bit for bit, except for masked virtual tokens: they lengthen the softmax, whose sum may be rounded in another
    order.
    """
    found, base = tiny.logits(EMPTY[name]), tiny.logits()
    if name == "no prefix in any layer":
        np.testing.assert_allclose(found[tiny.REAL], base[tiny.REAL], rtol=0, atol=2e-5)
    else:
        assert np.array_equal(found, base)


def test_visible():
    """Causal by position, within the window; virtual tokens always, padding never."""
    positions = jnp.array([[0, 1, 2, 3, NEVER]])
    keys = jnp.concatenate([jnp.full((1, 1), ALWAYS), positions], axis=1)
    expected = [
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 0, 1, 1, 0, 0],
        [1, 0, 0, 1, 1, 0],
    ]
    assert np.array_equal(visible(positions, keys, window=2)[0, :4], np.array(expected, bool))
    assert np.array_equal(visible(positions, keys, window=None)[0, 3], [True, True, True, True, True, False])


GAIN = tiny.normal(4, LAYERS, 24)


def test_merge_takes_every_seam_and_the_lowest_layer():
    prefix = Prefix(*slots(1), jnp.full((LAYERS, SLOTS), ALWAYS))
    low_rank = LowRank(tiny.normal(1, LAYERS, 2, 16), tiny.normal(2, LAYERS, 24, 2))
    merged = merge(
        [
            Hooks(first_adapted_layer=3, prefix=prefix, gain={"up_proj": GAIN}),
            Hooks(first_adapted_layer=2, delta={"up_proj": low_rank}, gain={"gate_proj": GAIN}),
        ]
    )
    assert set(merged.gain) == {"up_proj", "gate_proj"}
    assert merged.first_adapted_layer == 2 and merged.prefix is prefix and merged.delta == {"up_proj": low_rank}
    assert merged.prompt is merged.gated is merged.after_attention is merged.after_feed_forward is None


def test_merge_refuses_two_of_the_same_seam():
    prefix = Hooks(prefix=Prefix(*slots(1), jnp.full((LAYERS, SLOTS), ALWAYS)))
    delta = Hooks(delta={"q_proj": LowRank(tiny.normal(1, 4, 2, 16), tiny.normal(2, 4, 4, 6, 2))})
    with pytest.raises(InputError, match="the decoder's seam 'prefix'"):
        merge([prefix, prefix])
    with pytest.raises(InputError, match="change q_proj"):
        merge([delta, delta])
    with pytest.raises(InputError, match="scale up_proj; give each its own targets"):
        merge([Hooks(gain={"up_proj": GAIN}), Hooks(gain={"up_proj": GAIN})])


def test_annotations_of_shapes_are_executed():
    """As conftest.py sets it up: keys with another head size than the queries never reach the product."""
    query, keys, values = tiny.normal(1, 1, 2, 4, 6), tiny.normal(2, 1, 3, 2, 8), tiny.normal(3, 1, 3, 2, 6)
    with pytest.raises(TypeCheckError, match=r"Expected type: .*B S K H"):
        attention(query, keys, values)
