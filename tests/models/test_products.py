"""Products in float32, bfloat16 and int8 beside float64, their gradients, and the form that XLA gets on CPU."""

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from jaxprefix.models import processor, products
from jaxprefix.models.products import FEW_ROWS, int8_matmul, matmul

WIDTH, OUT = 24, 40
SOME_ROWS = pytest.mark.parametrize("rows", [1, FEW_ROWS, FEW_ROWS + 1])


@pytest.fixture(params=[True, False], ids=["instructions", "conversions"])
def instructions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the processor is said to multiply bfloat16 and int8. XLA computes both forms on any."""
    monkeypatch.setattr(products, "has_instructions", lambda dtype: request.param)
    return request.param


def operands(rows: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Inputs, weight, and the direction of a gradient."""
    return tiny.normal(0, rows, WIDTH), tiny.normal(1, OUT, WIDTH), tiny.normal(2, rows, OUT)


def wide(*arrays: jax.Array) -> list[np.ndarray]:
    return [np.asarray(each.astype(jnp.float32), np.float64) for each in arrays]


@SOME_ROWS
def test_float32(rows: int):
    inputs, matrix, direction = operands(rows)
    found, pull_back = jax.vjp(matmul, inputs, matrix)
    x, w, d = wide(inputs, matrix, direction)
    np.testing.assert_allclose(found, x @ w.T, rtol=0, atol=1e-5)
    of_inputs, of_matrix = pull_back(direction)
    np.testing.assert_allclose(of_inputs, d @ w, rtol=0, atol=2e-5)
    np.testing.assert_allclose(of_matrix, d.T @ x, rtol=0, atol=2e-5)


@SOME_ROWS
def test_bfloat16(rows: int, instructions: bool):
    """The result and both gradients are rounded once, from sums in float32."""
    inputs, matrix, direction = (each.astype(jnp.bfloat16) for each in operands(rows))
    found, pull_back = jax.vjp(matmul, inputs, matrix)
    x, w, d = wide(inputs, matrix, direction)
    for result, exact in zip((found, *pull_back(direction)), (x @ w.T, d @ w, d.T @ x), strict=True):
        assert result.dtype == jnp.bfloat16
        np.testing.assert_allclose(wide(result)[0], exact, rtol=2**-8, atol=1e-4)


@SOME_ROWS
def test_int8(rows: int, instructions: bool):
    """As exact as float32, also where an outlier is far above the other inputs of its row."""
    inputs, _, direction = operands(rows)
    inputs = inputs.at[:, 3].mul(1000)
    matrix = jax.random.randint(jax.random.key(1), (OUT, WIDTH), -127, 128).astype(jnp.int8)
    found, pull_back = jax.vjp(lambda inputs: int8_matmul(inputs, matrix), inputs)
    x, w, d = wide(inputs, matrix, direction)
    for result, exact in zip((found, *pull_back(direction)), (x @ w.T, d @ w), strict=True):
        assert result.dtype == jnp.float32
        np.testing.assert_allclose(result, exact, rtol=0, atol=1e-6 * np.abs(exact).max())


def test_int8_of_zeros_and_of_what_is_not_finite(instructions: bool):
    """A row of zeros gives zeros, and one with NaN or infinity no finite number. Other rows are untouched."""
    matrix = jnp.full((OUT, WIDTH), 3, jnp.int8)
    inputs = jnp.ones((4, WIDTH)).at[0].set(0.0).at[1, 5].set(jnp.nan).at[2, 5].set(jnp.inf)
    found = int8_matmul(inputs, matrix)
    assert np.array_equal(found[0], np.zeros(OUT)) and np.allclose(found[3], 3 * WIDTH)
    assert not np.isfinite(found[1:3]).any()


@pytest.mark.parametrize(("rows", "shape"), [(FEW_ROWS, (OUT, FEW_ROWS)), (FEW_ROWS + 1, (FEW_ROWS + 1, OUT))])
def test_which_side_the_weight_is_on(rows: int, shape: tuple[int, int]):
    """Without the barrier XLA would turn the few rows back."""
    program = jax.jit(matmul).lower(tiny.normal(0, rows, WIDTH), tiny.normal(1, OUT, WIDTH)).compile().as_text()
    assert program is not None
    assert re.findall(r"= f32\[(\d+),(\d+)\]\{1,0\} dot\(", program) == [tuple(map(str, shape))]


@SOME_ROWS
@pytest.mark.parametrize(
    ("multiply", "dtype", "product"), [(matmul, "bfloat16", "bf16xbf16->f32"), (int8_matmul, "int8", "i8xi8->i32")]
)
def test_no_product_converts_its_weight(
    rows: int, multiply: Any, dtype: str, product: str, monkeypatch: pytest.MonkeyPatch
):
    """What XLA is asked for, forward and for the inputs' gradient: operands as they are, results wider."""
    monkeypatch.setattr(products, "has_instructions", lambda dtype: True)
    inputs, matrix, direction = operands(rows)
    narrow = jnp.dtype(dtype)
    inputs, direction = (each if dtype == "int8" else each.astype(narrow) for each in (inputs, direction))

    def both(inputs: jax.Array, matrix: jax.Array, direction: jax.Array) -> Any:
        found, pull_back = jax.vjp(lambda inputs: multiply(inputs, matrix), inputs)
        return found, pull_back(direction.astype(found.dtype))

    text = jax.jit(both).lower(inputs, matrix.astype(narrow), direction).as_text()
    found = re.findall(r"dot_general.*: \(tensor<[^>]*x(\w+)>, tensor<[^>]*x(\w+)>\) -> tensor<[^>]*x(\w+)>", text)
    assert [f"{left}x{right}->{result}" for left, right, result in found] == [product] * 2


@pytest.mark.parametrize(
    ("text", "bfloat16", "int8"),
    [
        ("processor : 0\nflags\t\t: fpu avx512f amx_bf16 amx_int8\n", True, True),
        ("flags\t\t: fpu avx2 avx_vnni\n", False, True),
        ("flags\t\t: fpu avx2\nbugs : avx512_bf16\n", False, False),
        ("", False, False),
        (None, False, False),
    ],
)
def test_what_the_processor_has(
    text: str | None, bfloat16: bool, int8: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    read = processor.has_instructions.__wrapped__  # without its cache
    assert (read("bfloat16"), read("int8")) == (bfloat16, int8)
