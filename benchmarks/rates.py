"""python -m benchmarks.rates matrix|copy: what the machine itself can do, measured; JSON on standard output."""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

REPEATS = 10


def main(kind: str) -> dict[str, Any]:
    is_small = jax.default_backend() == "cpu"
    rate = matrix(1024 if is_small else 8192) if kind == "matrix" else copy(2**24 if is_small else 2**31)
    device = "CPU" if is_small else jax.devices()[0].device_kind
    return {"rate": rate, "device": device}


def matrix(size: int) -> float:
    """FLOP/s of a product of squares; in bfloat16, on CPU in float32."""
    kind = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    one = jax.random.normal(jax.random.key(0), (size, size)).astype(kind)
    return 2 * size**3 / _seconds(lambda x: x @ one, one)


def copy(count: int) -> float:
    """Bytes a second, read and written."""
    numbers = jnp.ones(count // 2, jnp.bfloat16)
    return 2 * count / _seconds(lambda x: x + 1, numbers)


def _seconds(function: Callable[[jax.Array], jax.Array], given: jax.Array) -> float:
    """Of one call, the best of a few rounds of several."""
    call = jax.jit(function)
    call(given).block_until_ready()
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        for _ in range(REPEATS):
            found = call(given)
        found.block_until_ready()
        best = min(best, (time.perf_counter() - began) / REPEATS)
    return best


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
