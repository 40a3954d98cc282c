"""python -m benchmarks.rates matrix|copy: measures the machine's rate of matrix products or copies; prints JSON."""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.sides import cores

REPEATS = 10


def main(operation: str) -> dict[str, Any]:
    is_small = jax.default_backend() == "cpu"
    rate = matrix(1024 if is_small else 8192) if operation == "matrix" else copy(2**28 if is_small else 2**31)
    device = cores() if is_small else jax.devices()[0].device_kind
    return {"rate": rate, "device": device}


def matrix(size: int) -> float:
    """FLOP/s of a product of square matrices, in bfloat16, or in float32 on CPU."""
    dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    x = jax.random.normal(jax.random.key(0), (size, size)).astype(dtype)
    return 2 * size**3 / _seconds(lambda y: y @ x, x)


def copy(count: int) -> float:
    """Bytes per second, read and written, in place: on CPU the pages of new arrays would take most of the time."""
    dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16  # a CPU may have to convert bfloat16
    numbers = jnp.ones(count // dtype.dtype.itemsize, dtype)
    return 2 * count / _seconds(lambda x: x + 1, numbers, in_place=True)


def _seconds(function: Callable[[jax.Array], jax.Array], argument: jax.Array, in_place: bool = False) -> float:
    """The time of one call, averaged over a round of calls; the best of three rounds."""
    call = jax.jit(function, donate_argnums=0 if in_place else ())
    result = call(argument).block_until_ready()
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        for _ in range(REPEATS):
            result = call(result if in_place else argument)
        result.block_until_ready()
        best = min(best, (time.perf_counter() - began) / REPEATS)
    return best


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
