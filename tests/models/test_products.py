"""Products of few rows: the same numbers and gradients as any other, and the weight on the left in XLA's program."""

import re

import jax
import numpy as np
import pytest
import tiny

from jaxprefix.models.block import FEW_ROWS, matmul

WIDTH, OUT = 24, 40


@pytest.mark.parametrize("rows", [1, FEW_ROWS, FEW_ROWS + 1])
def test_equal_and_differentiable(rows: int):
    inputs, matrix, direction = (
        tiny.normal(n, *shape) for n, shape in enumerate([(rows, WIDTH), (OUT, WIDTH), (rows, OUT)])
    )
    found, pull_back = jax.vjp(matmul, inputs, matrix)
    wide = [np.asarray(each, np.float64) for each in (inputs, matrix, direction)]
    np.testing.assert_allclose(found, wide[0] @ wide[1].T, rtol=0, atol=1e-5)
    of_inputs, of_matrix = pull_back(direction)
    np.testing.assert_allclose(of_inputs, wide[2] @ wide[1], rtol=0, atol=2e-5)
    np.testing.assert_allclose(of_matrix, wide[2].T @ wide[0], rtol=0, atol=2e-5)


@pytest.mark.parametrize(("rows", "shape"), [(FEW_ROWS, (OUT, FEW_ROWS)), (FEW_ROWS + 1, (FEW_ROWS + 1, OUT))])
def test_which_side_the_weight_is_on(rows: int, shape: tuple[int, int]):
    """Without the barrier XLA would turn the few rows back."""
    program = jax.jit(matmul).lower(tiny.normal(0, rows, WIDTH), tiny.normal(1, OUT, WIDTH)).compile().as_text()
    assert program is not None
    assert re.findall(r"= f32\[(\d+),(\d+)\]\{1,0\} dot\(", program) == [tuple(map(str, shape))]
