"""The last layer at selected positions of each row: the same states and gradients, with fewer products."""

import math
from dataclasses import replace
from functools import partial
from typing import Any

import every
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from jaxprefix.models import decoder
from jaxprefix.models.adapters import Adapter
from jaxprefix.models.config import DecoderConfig

ROWS, TIME = tiny.TOKENS.shape
FEW = np.array([[10, 0, 3, 3], [6, 5, 0, 0]])  # in any order, some twice
READ = tiny.normal(3, *FEW.shape, tiny.CONFIG.hidden_size)  # what a loss reads of each state
WINDOW, ONE = replace(tiny.CONFIG, window=4), replace(tiny.CONFIG, layers=1)
CASES = {  # the method, the decoder, and whether the caller says that rows are right-padded
    "prefix, a window": (every.LEARN["prefix"], WINDOW, True),
    "soft-prompt": (every.LEARN["soft-prompt"], tiny.CONFIG, True),
    "lora, any rows": (every.LEARN["lora"], tiny.CONFIG, False),
    "full, one layer": (every.LEARN["full"], ONE, True),
    "full": (every.LEARN["full"], tiny.CONFIG, True),
}
CASES |= {name: (adapter, tiny.CONFIG, True) for name, adapter in every.LEARN.items() if name not in CASES}
QUICK = ("prefix, a window", "soft-prompt", "lora, any rows")


def loss(
    config: DecoderConfig, adapter: Adapter, at: bool, right_padded: bool, params: Any, frozen: Any
) -> tuple[jax.Array, jax.Array]:
    """For states that the decoder selects, or that are selected from all of its states."""
    weights, hooks = adapter.bind(config, params, frozen)
    batch = tiny.batch().replace(is_right_padded=right_padded)
    states = decoder.hidden_states(config, weights, batch, hooks, token_indices=jnp.array(FEW) if at else None)
    found = states if at else jnp.take_along_axis(states, jnp.array(FEW)[..., None], axis=1)
    return jnp.sum(READ * found), found


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_selected_positions_have_the_states_and_gradients_of_all(name: str):
    adapter, config, right_padded = CASES[name]
    frozen = tiny.FROZEN | {"layers": jax.tree.map(lambda leaf: leaf[: config.layers], tiny.FROZEN["layers"])}
    params = tiny.noisy(adapter, 0.3, config, frozen)
    few, whole = (
        jax.jit(jax.value_and_grad(partial(loss, config, adapter, at, right_padded), has_aux=True))(params, frozen)
        for at in (True, False)
    )
    for path, leaf in jax.tree_util.tree_leaves_with_path(whole[1]):
        assert "lm_head" in str(path) or float(jnp.abs(leaf).max()) > 1e-3, path
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=2e-5 * np.abs(b).max()), few, whole)


@pytest.mark.parametrize(("count", "rows"), [(1, ROWS), (TIME // 2, ROWS * (TIME // 2)), (TIME // 2 + 1, None)])
def test_the_last_feed_forward_computes_selected_positions_only(count: int, rows: int | None):
    """The last layer is outside the loop; if half of all positions are read, the loop has all layers."""
    at = jnp.zeros((ROWS, count), int)
    jaxpr = jax.make_jaxpr(lambda frozen: decoder.hidden_states(tiny.CONFIG, frozen, tiny.batch(), token_indices=at))(
        tiny.FROZEN
    ).jaxpr
    loops = [equation for equation in jaxpr.eqns if equation.primitive.name == "scan"]
    assert [loop.params["length"] for loop in loops] == [tiny.CONFIG.layers - (rows is not None)]
    inner = [
        equation.params["jaxpr"] for equation in jaxpr.eqns if "jaxpr" in equation.params and equation not in loops
    ]
    products = [each for part in inner for each in part.eqns if each.primitive.name == "dot_general"]
    made = [variable.aval.shape for each in products for variable in each.outvars]
    found = {math.prod(shape) for shape in made if tiny.CONFIG.intermediate_size in shape}
    assert found == (set() if rows is None else {rows * tiny.CONFIG.intermediate_size})
