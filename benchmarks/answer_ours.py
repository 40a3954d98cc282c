"""One measured side: jaxprefix answers a folder's rows; JSON on standard output.

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

from benchmarks import decoding as batch_decoding
from benchmarks.steps import read_rows
from benchmarks.train_ours import peak_memory
from jaxprefix.distributed import mesh as meshes
from jaxprefix.models import scoring, sharding
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.decoder import Batch
from jaxprefix.models.hooks import Hooks
from jaxprefix.models.loading import load
from jaxprefix.runs.base_model import frozen_shapes

PASSES = 4  # the first one compiles
NO_ENDS = (2**30,)


def main(folder: Path, work: str, dtype: str, number: int) -> dict[str, Any]:
    sizes, mesh = DecoderConfig.read(folder / "model"), meshes.make_mesh("1x1")
    shapes = frozen_shapes(sizes, dtype, on_cpu=False)
    frozen = load(folder / "model", sizes, shapes, sharding.param_shardings(mesh, shapes))
    rows = read_rows(folder).steps[0]
    tokens = np.array([row.prompt for row in rows], np.int32)
    positions = np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32), tokens.shape)
    batch = Batch(jnp.asarray(tokens), jnp.asarray(positions), right_padded=True)
    seconds, answers = (decoding if work == "decode" else choosing)(sizes, mesh, frozen, batch, number)
    return {"seconds": seconds, "answers": answers.tolist(), "memory": peak_memory()}


def decoding(sizes: DecoderConfig, mesh: Any, frozen: Any, batch: Batch, new: int) -> tuple[list[float], np.ndarray]:
    """Seconds of all tokens but the first, which comes of the prompt."""

    @partial(jax.jit, static_argnums=2)
    @partial(meshes.with_mesh, mesh)
    def run(frozen: Any, batch: Batch, length: int) -> tuple[jax.Array, jax.Array]:
        return batch_decoding.generate(sizes, frozen, batch, Hooks(), length, NO_ENDS)

    seconds, found = [], np.zeros(0)
    for _ in range(PASSES):
        first, _ = _timed(lambda: run(frozen, batch, 1))
        both, found = _timed(lambda: run(frozen, batch, new)[0])
        seconds.append(both - first)
    return seconds, found


def choosing(sizes: DecoderConfig, mesh: Any, frozen: Any, batch: Batch, count: int) -> tuple[list[float], np.ndarray]:
    """Log-likelihoods of the choices 0, 1, ... of one token each."""
    rows = batch.tokens.shape[0]
    tokens = jnp.broadcast_to(jnp.arange(count)[:, None, None], (count, rows, 1)).astype(jnp.int32)
    lengths = jnp.ones((count, rows), jnp.int32)

    @jax.jit
    @partial(meshes.with_mesh, mesh)
    def choose(frozen: Any, batch: Batch) -> jax.Array:
        return scoring.choices(sizes, frozen, batch, Hooks(), tokens, lengths)[0].T

    passes = [_timed(lambda: choose(frozen, batch)) for _ in range(PASSES)]
    return [each for each, _ in passes], passes[-1][1]


def _timed(call: Callable[[], Any]) -> tuple[float, np.ndarray]:
    began = time.perf_counter()
    found = jax.block_until_ready(call())
    return time.perf_counter() - began, np.asarray(jax.tree.leaves(found)[0])


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), *sys.argv[2:4], int(sys.argv[4]))))
