"""The decoder in training: no [B, T, V] array, remat without effect on the values, no unused gradient."""

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import every
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn
from test_adapter_ids import quantized

from jaxprefix.errors import InputError
from jaxprefix.models import decoder, products, scan
from jaxprefix.models.adapters import Adapter, LoRA, PrefixTuning
from jaxprefix.models.block import gather_tokens

CONFIG, FROZEN = tiny.CONFIG, tiny.FROZEN
ROWS, TIME = tiny.TOKENS.shape
LEARNT = 6
SLOW = pytest.mark.slow
AT = np.array([[1, 2, 4, 7, 9, 10], [6, 0, 1, 2, 3, 3]])
TARGETS = np.random.default_rng(5).integers(0, CONFIG.vocabulary_size, AT.shape)
WEIGHTS = jnp.array(tiny.normal(9, *AT.shape))  # of each position in a loss


def equations(jaxpr: Jaxpr) -> Iterator[JaxprEqn]:
    """All equations of a program, including those of its loops and checkpoints."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for part in value if isinstance(value, tuple | list) else [value]:
                inner = part.jaxpr if isinstance(part, ClosedJaxpr) else part
                if isinstance(inner, Jaxpr):
                    yield from equations(inner)


def program(function: Any, *arguments: Any) -> Jaxpr:
    return jax.make_jaxpr(function)(*arguments).jaxpr


def chunked(states: jax.Array, frozen: Any) -> jax.Array:
    """The loss from the states at the learnt positions."""
    return jnp.sum(WEIGHTS * decoder.token_logprobs(frozen, states, jnp.array(TARGETS)))


def whole(states: jax.Array, frozen: Any) -> jax.Array:
    """The same from all logits."""
    every = jax.nn.log_softmax(decoder.logits(frozen, states))
    chosen = jnp.take_along_axis(every, jnp.array(AT)[..., None], axis=1)
    return jnp.sum(WEIGHTS * jnp.take_along_axis(chosen, jnp.array(TARGETS)[..., None], axis=-1)[..., 0])


# Chunks of 1, 2, 3 and 6 positions a row.
@pytest.mark.parametrize("learnt", [(0,), (0, 1)], ids=["frozen head", "learnt head"])
@pytest.mark.parametrize(("positions", "tied"), [(1, False), (5, False), (6, True), (512, False)])
def test_token_logprobs_are_the_log_softmax(
    monkeypatch: pytest.MonkeyPatch, positions: int, tied: bool, learnt: tuple[int, ...]
):
    monkeypatch.setattr(decoder, "HEAD_POSITIONS", positions)
    states = tiny.normal(1, ROWS, TIME, CONFIG.hidden_size)
    frozen = {name: leaf for name, leaf in FROZEN.items() if name != "lm_head" or not tied}
    found, expected = (
        jax.jit(jax.value_and_grad(loss, learnt))(states, frozen)
        for loss in (lambda states, frozen: chunked(gather_tokens(states, jnp.array(AT)), frozen), whole)
    )
    assert float(jnp.abs(expected[0])) > 1
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-5), found, expected)


def test_token_logprobs_are_float32_from_bfloat16():
    def cast(tree: Any, dtype: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.astype(dtype), tree)

    rounded = cast((FROZEN, tiny.normal(1, *AT.shape, CONFIG.hidden_size)), jnp.bfloat16)
    found, exact = (
        decoder.token_logprobs(*cast(rounded, dtype), jnp.array(TARGETS)) for dtype in (jnp.bfloat16, jnp.float32)
    )
    assert found.dtype == jnp.float32
    # The products of bfloat16 numbers are exact in float32: only the order of their sums may differ.
    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("learnt", "products"), [((0,), 2), ((0, 1), 4)], ids=["frozen head", "learnt head"])
def test_a_frozen_head_computes_its_logits_once(learnt: tuple[int, ...], products: int):
    """Logits and the gradient of the states; a learnt head also has the logits again and its own gradient."""
    states = tiny.normal(1, *AT.shape, CONFIG.hidden_size)
    found = program(jax.grad(chunked, learnt), states, {"lm_head": FROZEN["lm_head"], "embed_tokens": None})
    assert sum(equation.primitive.name == "dot_general" for equation in equations(found)) == products


def test_gradients_in_bfloat16_are_those_of_float32():
    head, states = FROZEN["lm_head"].astype(jnp.bfloat16), tiny.normal(1, *AT.shape, CONFIG.hidden_size)
    frozen = {"lm_head": head, "embed_tokens": head}
    found = jax.grad(chunked)(jnp.asarray(states, jnp.bfloat16), frozen)
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), frozen)
    exact = jax.grad(chunked)(jnp.asarray(states, jnp.bfloat16).astype(jnp.float32), wide)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(jnp.float32), exact, rtol=0, atol=0.01 * float(jnp.abs(exact).max()))


def loss(params: Any, frozen: Any, adapter: Adapter, remat: str = "dots") -> jax.Array:
    weights, hooks = adapter.bind(CONFIG, params, frozen)
    return chunked(decoder.hidden_states(CONFIG, weights, tiny.batch(), hooks, remat, jnp.array(AT)), weights)


def vocabulary_sizes(jaxpr: Jaxpr) -> list[int]:
    """Elements of every array that has the vocabulary as a dimension, but for the tables of the model."""
    tables = {FROZEN["lm_head"].shape, FROZEN["lm_head"].shape[::-1]}
    arrays = [variable.aval for equation in equations(jaxpr) for variable in equation.outvars]
    shapes = [getattr(array, "shape", ()) for array in arrays]
    return [int(np.prod(shape)) for shape in shapes if CONFIG.vocabulary_size in shape and shape not in tables]


@pytest.mark.parametrize("adapter", [PrefixTuning(length=3), LoRA()], ids=["prefix", "lora"])
def test_no_array_of_batch_time_vocabulary_exists(monkeypatch: pytest.MonkeyPatch, adapter: Adapter):
    """Neither forward nor backward, nor stacked over chunks (law 6)."""
    monkeypatch.setattr(decoder, "HEAD_POSITIONS", 4)
    params = tiny.noisy(adapter)
    sizes = vocabulary_sizes(program(jax.grad(lambda params: loss(params, FROZEN, adapter)), params))
    assert max(sizes) == ROWS * 2 * CONFIG.vocabulary_size  # one chunk: 2 positions of each row
    states = tiny.normal(1, ROWS, TIME, CONFIG.hidden_size)
    forbidden = vocabulary_sizes(program(jax.grad(lambda states: whole(states, FROZEN)), states))
    assert max(forbidden) == ROWS * TIME * CONFIG.vocabulary_size  # such an array would be detected


# Each seam's gradient at once, a loop that begins above the lowest layers, and the weights themselves.
AT_ONCE: dict[str, Adapter] = {"all at once": every.ALL_AT_ONCE} | every.LEARN
QUICK = ("prefix+lora",)


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=SLOW) for name in AT_ONCE])
def test_what_remat_keeps_does_not_change_the_gradients(name: str):
    """To 1e-5 of the largest: what is computed again may be rounded otherwise. Every parameter has a gradient."""
    adapter = AT_ONCE[name]
    params = tiny.noisy(adapter, 0.3)
    none, dots, full = (
        jax.jit(
            jax.value_and_grad(lambda params, remat=remat: loss(params, FROZEN, adapter, remat)),
        )(params)
        for remat in ("none", "dots", "full")
    )
    for path, leaf in jax.tree_util.tree_leaves_with_path(none[1]):
        assert float(jnp.abs(leaf).max()) > 1e-3, path
    for other in (dots, full):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(a).max()), none, other)


def test_unknown_remat_is_refused():
    with pytest.raises(InputError, match="remat 'some' is unknown; expected full, dots, none"):
        decoder.hidden_states(CONFIG, FROZEN, tiny.batch(), remat="some")


def loops(adapter: Adapter, remat: str = "dots", frozen: Any = FROZEN) -> list[JaxprEqn]:
    """The loops over layers in the gradient's program, in its order."""
    params = tiny.noisy(adapter)

    def total(params: Any, frozen: Any) -> jax.Array:
        weights, hooks = adapter.bind(CONFIG, params, frozen)
        return jnp.sum(decoder.hidden_states(CONFIG, weights, tiny.batch(), hooks, remat))

    jaxpr = program(jax.grad(total), params, frozen)
    return [equation for equation in equations(jaxpr) if equation.primitive.name == "scan"]


@pytest.mark.parametrize(("layers", "lengths"), [("all", [4, 4]), ("top:3", [1, 3, 3]), ("top:1", [1, 1, 3])])
def test_layers_below_the_first_adapted_one_are_not_differentiated(layers: str, lengths: list[int]):
    """One loop forward and one backward over the adapted layers, only one forward over those below (law 5)."""
    found = loops(PrefixTuning(length=3, layers=layers))
    assert sorted(equation.params["length"] for equation in found) == lengths


def matrices(shape: tuple[int, ...]) -> set[tuple[int, ...]]:
    """A layer's weight as it is, and as the two matrices that it may be laid out as."""
    return {shape, (shape[0], math.prod(shape[1:])), (math.prod(shape[:-1]), shape[-1])}


SHAPES = [leaf.shape[1:] for leaf in jax.tree.leaves(FROZEN["layers"]) if leaf.ndim > 2]
MATRICES = set().union(*map(matrices, SHAPES))


@pytest.mark.parametrize("remat", [*(pytest.param(each, marks=pytest.mark.slow) for each in ("none", "full")), "dots"])
@pytest.mark.parametrize("name", every.SINGLE | every.SUMS)
def test_loops_carry_no_stack_of_frozen_weights_out(name: str, remat: str):
    """Neither their gradients nor, as residuals of the backward pass, the weights that each layer picks (laws 1, 5)."""
    found = loops((every.SINGLE | every.SUMS)[name], remat)
    made = {variable.aval.shape[1:] for equation in found for variable in equation.outvars}  # for any number of layers
    assert len(made) > 1 and not MATRICES & made


def test_a_stack_that_is_carried_out_is_detected(monkeypatch: pytest.MonkeyPatch):
    """The plain way to save everything keeps every layer's weights."""
    monkeypatch.setattr(scan, "checkpointed", lambda body, remat: body)
    made = {variable.aval.shape[1:] for equation in loops(LoRA()) for variable in equation.outvars}
    assert all(matrices(FROZEN["layers"][name].shape[1:]) & made for name in ("q_proj", "down_proj"))


def test_what_the_forward_pass_keeps_of_each_layer(monkeypatch: pytest.MonkeyPatch):
    """ "full" the stream between layers alone; "dots" the products with weights too; "none" all; never scores."""
    monkeypatch.setattr(products, "FEW_TERMS", 8)  # the model is narrow
    forward = {remat: loops(LoRA(), remat)[0].outvars for remat in ("full", "dots", "none")}
    kept = {remat: {variable.aval.shape[1:] for variable in made} for remat, made in forward.items()}
    stream = (ROWS, TIME, CONFIG.hidden_size)
    assert kept["full"] == {stream[1:], stream}  # the last stream, and every layer's
    inner = {ROWS * TIME, CONFIG.intermediate_size}  # either way round: so few rows stand on the right
    assert all(inner in map(set, kept[remat]) for remat in ("dots", "none"))
    assert inner not in map(set, kept["full"]) and kept["none"] - kept["dots"]
    assert not [shape for shapes in kept.values() for shape in shapes if shape.count(TIME) > 1]


def test_products_behind_a_low_rank_are_not_kept(monkeypatch: pytest.MonkeyPatch):
    """Only the few numbers between the two products of LoRA are."""

    def kept(few: int) -> Counter[int]:
        monkeypatch.setattr(products, "FEW_TERMS", few)
        forward = loops(LoRA(2, 4.0, "gate,up"))[0].outvars
        return Counter(math.prod(variable.aval.shape[1:]) for variable in forward)

    assert kept(1) - kept(2) == {ROWS * TIME * CONFIG.intermediate_size: 2}


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_of_products_in_another_dtype_the_result_is_kept(dtype: str, monkeypatch: pytest.MonkeyPatch):
    """In float32, and as many numbers as where all is float32: not the three rows that int8 makes of each."""
    monkeypatch.setattr(products, "has_instructions", lambda dtype: True)
    monkeypatch.setattr(products, "FEW_TERMS", 8)  # the model is narrow
    other = quantized(FROZEN) if dtype == "int8" else jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), FROZEN)
    count = ROWS * TIME * CONFIG.intermediate_size

    def kept(frozen: Any) -> Counter[str]:
        arrays: Any = [variable.aval for variable in loops(LoRA(), frozen=frozen)[0].outvars]
        return Counter(array.dtype.name for array in arrays if math.prod(array.shape[1:]) == count)

    assert kept(other) == kept(FROZEN) and set(kept(other)) == {"float32"}
