"""python -m benchmarks.kernels: attention after a prefix, as this device computes it, beside a masked softmax.

Prints JSON: the largest error of each case, in its outputs and gradients, as a share of the largest value. On a GPU the
rows are bfloat16, as cuDNN needs them, elsewhere float32. The softmax is computed in float32.
"""

import json
import sys
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxprefix.models import attention
from jaxprefix.models.attention.call import AttentionShape
from jaxprefix.models.hooks import ALWAYS, NEVER, Prefix

ROWS, HEADS, KV_HEADS, SIZE = 2, 8, 2, 128
NAMES = ("query", "keys", "values", "prefix keys", "prefix values")


@dataclass(frozen=True)
class Case:
    """Attention of one layer to a prefix of `slots` virtual tokens, if it is `present`, and to `time` tokens."""

    time: int
    slots: int = 0
    window: int | None = None
    present: bool = True


CASES = (
    Case(512, 10),
    Case(255, 10),  # odd in all
    Case(512, 7),
    Case(384, 10, present=False),
    Case(257),
    Case(512, window=100),  # Mistral's
    Case(256, 10, window=256),
    Case(256, 10, window=100),  # it would hide the prefix from cuDNN
)


def main() -> dict[str, Any]:
    on_gpu = jax.default_backend() == "gpu"
    dtype = jnp.bfloat16 if on_gpu else jnp.float32
    cases = []
    for case in CASES:
        cases.append(asdict(case) | {"kernel": _kernel(case, dtype), "errors": errors(case, dtype)})
        print(cases[-1], file=sys.stderr, flush=True)  # stays if the time ends
    return {"cases": cases, "device": jax.devices()[0].device_kind if on_gpu else "CPU"}


def _kernel(case: Case, dtype: Any) -> str:
    shape = (ROWS, case.time, HEADS, KV_HEADS, SIZE, dtype, case.slots, case.window)
    return attention.kernel(AttentionShape(*shape))[0]


def errors(case: Case, dtype: Any) -> dict[str, float]:
    """The largest error of the outputs and of each gradient, as a share of the largest value."""
    lengths = np.array([case.time, case.time * 2 // 3])
    real = np.arange(case.time) < lengths[:, None]
    positions = jnp.where(real, np.arange(case.time), NEVER)
    shapes = [(ROWS, case.time, heads, SIZE) for heads in (HEADS, KV_HEADS, KV_HEADS)]
    shapes += [(case.slots, KV_HEADS, SIZE)] * 2
    random = np.random.default_rng(0)
    arguments = [jnp.asarray(random.normal(size=shape), dtype) for shape in shapes]
    direction = jnp.asarray(random.normal(size=shapes[0]) * real[..., None, None], jnp.float32)

    def run(right_padded: bool, *arguments: jax.Array) -> tuple[jax.Array, jax.Array]:
        query, keys, values, *slots = arguments
        prefix = Prefix(*slots, jnp.full(case.slots, ALWAYS if case.present else NEVER)) if case.slots else None
        inputs = (query, keys, values, positions, positions, prefix, case.window, right_padded)
        read = attention.attend_prefill(*inputs).astype(jnp.float32)
        return jnp.sum(read * direction), jnp.where(real[..., None, None], read, 0)

    # Trying the ways to compute a product takes a GPU a minute for all cases.
    options = {"xla_gpu_autotune_level": 0} if jax.default_backend() == "gpu" else None
    both = jax.value_and_grad(run, range(1, 6), has_aux=True)
    differentiate = jax.jit(both, static_argnums=0, compiler_options=options)
    (_, read), gradients = differentiate(True, *arguments)
    with jax.default_matmul_precision("highest"):  # a GPU would round float32 to TF32
        (_, expected), wanted = differentiate(False, *(argument.astype(jnp.float32) for argument in arguments))
    pairs = zip(("outputs", *NAMES), (read, *gradients), (expected, *wanted), strict=True)
    return {name: _error(found, right) for name, found, right in pairs if right.size and np.any(right)}


def _error(found: jax.Array, expected: jax.Array) -> float:
    difference = np.abs(np.asarray(found, np.float32) - np.asarray(expected))
    return float(difference.max() / np.abs(expected).max())


if __name__ == "__main__":
    print(json.dumps(main()))
