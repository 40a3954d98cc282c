"""One measured side: jaxprefix answers the rows of a folder; prints JSON.

python -m benchmarks.answer_ours FOLDER decode DTYPE NEW_TOKENS | FOLDER scoring DTYPE CHOICES
"""

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from benchmarks import decoding as batch_decoding
from benchmarks.steps import read_rows
from benchmarks.train_ours import peak_memory
from jaxprefix.distributed import mesh as meshes
from jaxprefix.models import scoring, sharding
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.decoder import Batch, Frozen
from jaxprefix.models.hooks import Hooks
from jaxprefix.models.layers import unstack
from jaxprefix.models.loading import load
from jaxprefix.runs.base_model import frozen_shapes

PASSES = 4  # the first one compiles
NO_ENDS = (2**30,)
Timed = tuple[list[float], np.ndarray]  # (seconds of each pass, answers)


def main(folder: Path, work: str, dtype: str, number: int) -> dict[str, Any]:
    sizes, mesh = DecoderConfig.read(folder / "model"), meshes.make_mesh("1x1")
    shapes = jax.eval_shape(unstack, frozen_shapes(sizes, dtype, on_cpu=jax.default_backend() == "cpu"))
    began = time.perf_counter()
    frozen = load(folder / "model", sizes, shapes, sharding.param_shardings(mesh, shapes))
    loaded = time.perf_counter() - began
    print(f"loaded in {loaded:.1f} s", file=sys.stderr, flush=True)  # stays if the time ends
    rows = read_rows(folder).steps[0]
    tokens = np.array([row.prompt for row in rows], np.int32)
    batch = Batch.right_padded(jnp.asarray(tokens), jnp.full(len(tokens), tokens.shape[1]))
    seconds, answers = (decoding if work == "decode" else choosing)(sizes, mesh, frozen, batch, number)
    return {"seconds": seconds, "answers": answers.tolist(), "memory": peak_memory(), "load": loaded}


def decoding(sizes: DecoderConfig, mesh: Mesh, frozen: Frozen, batch: Batch, new: int) -> Timed:
    """The tokens, and the seconds of all tokens after the first."""

    @partial(jax.jit, static_argnums=2)
    @partial(meshes.with_mesh, mesh)
    def run(frozen: Frozen, batch: Batch, length: int) -> tuple[jax.Array, jax.Array]:
        return batch_decoding.generate(sizes, frozen, batch, Hooks(), length, NO_ENDS)

    seconds, tokens = [], np.zeros(0)
    for _ in range(PASSES):
        first, _ = _timed(lambda: run(frozen, batch, 1)[0])
        total, tokens = _timed(lambda: run(frozen, batch, new)[0])
        seconds.append(total - first)
    return seconds, tokens


def choosing(sizes: DecoderConfig, mesh: Mesh, frozen: Frozen, batch: Batch, count: int) -> Timed:
    """The log-likelihoods of the one-token choices 0, 1, ..., and the seconds."""
    rows = batch.tokens.shape[0]
    tokens = jnp.broadcast_to(jnp.arange(count, dtype=jnp.int32), (rows, count))
    lengths = jnp.ones((rows, count), jnp.int32)

    @jax.jit
    @partial(meshes.with_mesh, mesh)
    def choose(frozen: Frozen, batch: Batch) -> jax.Array:
        return scoring.choices(sizes, frozen, batch, Hooks(), tokens, lengths)[0]

    passes = [_timed(lambda: choose(frozen, batch)) for _ in range(PASSES)]
    return [seconds for seconds, _ in passes], passes[-1][1]


def _timed(call: Callable[[], jax.Array]) -> tuple[float, np.ndarray]:
    began = time.perf_counter()
    result = jax.block_until_ready(call())
    return time.perf_counter() - began, np.asarray(result)


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), *sys.argv[2:4], int(sys.argv[4]))))
