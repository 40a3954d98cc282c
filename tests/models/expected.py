"""The expected logits of the tiny decoder with an adapter: those of the naive decoder, row by row."""

from collections.abc import Mapping
from typing import Any

import naive
import numpy as np
import tiny


def slots(vectors: Any, layer: int) -> tuple[np.ndarray, np.ndarray]:
    """Keys and values `[P, K, H]` that vectors `[P, D]` become at a layer, in float64."""
    weights = tiny.FROZEN["layers"]
    vectors = naive.wide(vectors)
    keys, values = (np.einsum("pd,khd->pkh", vectors, naive.wide(weights[n][layer])) for n in ("k_proj", "v_proj"))
    return keys, values


def residual(down: Any, up: Any) -> Any:
    """x + up(silu(down(x))), in float64."""

    def block(x: np.ndarray) -> np.ndarray:
        inner = x @ naive.wide(down).T
        return x + inner / (1 + np.exp(-inner)) @ naive.wide(up).T

    return block


def assert_naive(found: np.ndarray, extras: Mapping[int, naive.Extras], atol: float = 2e-4) -> None:
    """The logits of the tiny rows. The adapter changes each of them by far more than the tolerance."""
    for row, length in enumerate(tiny.LENGTHS):
        expected = naive.logits(tiny.CONFIG, tiny.FROZEN, tiny.TOKENS[row, :length], extras)
        assert np.abs(expected - tiny.logits()[row, :length]).max() > 0.1
        np.testing.assert_allclose(found[row, :length], expected, rtol=0, atol=atol)
