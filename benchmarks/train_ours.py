"""One measured side: jaxprefix trains on the rows of a folder; JSON on standard output.

python -m benchmarks.train_ours FOLDER METHOD DTYPE REMAT
"""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import jax

from benchmarks.steps import RATE, read_adapter, read_rows
from jaxprefix import mesh as meshes
from jaxprefix.base import frozen_shapes
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.loading import load_like
from jaxprefix.run import RunConfig
from jaxprefix.train import placed
from jaxprefix.train.data import buckets, collate


def main(folder: Path, method: str, dtype: str, remat: str) -> dict[str, Any]:
    began = time.perf_counter()
    sizes, rows, mesh = DecoderConfig.read(folder / "model"), read_rows(folder), meshes.make("1x1")
    shapes = frozen_shapes(sizes, dtype, on_cpu=False)
    frozen = load_like(folder / "model", sizes, shapes, meshes.shardings(mesh, shapes))
    adapter, params = read_adapter(folder, sizes, method)
    settings = {"batch": rows.batch, "max_length": rows.time, "remat": remat, "lr": RATE}
    config = RunConfig(method="none", warmup=0.0, weight_decay=0.0, clip=0.0, **settings).with_adapter(adapter)
    optimizer, _ = placed.optimizer_of(config, len(rows.steps))
    state = placed.initial_state(adapter, optimizer, sizes, mesh, frozen, lambda _, length: [0] * length, seed=0)
    if params is not None:
        put = jax.tree.map(lambda leaf, like: jax.device_put(leaf, like.sharding), params, state.params)
        state = state.replace(params=put)  # type: ignore[attr-defined]
    [bucket] = buckets([row for step in rows.steps for row in step])
    batches = [meshes.put(mesh, collate(step, bucket, rows.batch, pad=0), dim=1) for step in rows.steps]
    loaded = time.perf_counter()
    step = placed.jitted(config, sizes, optimizer, mesh, state).lower(state, frozen, batches[0]).compile()
    compiled = time.perf_counter()
    seconds, losses = [], []
    for batch in batches:
        start = time.perf_counter()
        state, metrics = step(state, frozen, batch)
        losses.append(float(metrics["loss"]))
        seconds.append(time.perf_counter() - start)
    return {
        "seconds": seconds,
        "losses": losses,
        "load": loaded - began,
        "compile": compiled - loaded,
        "first_step": compiled - began + seconds[0],
        "memory": peak_memory(),
    }


def peak_memory() -> int:
    """Bytes, at most so far: of the accelerator, or of the process on CPU."""
    found = jax.devices()[0].memory_stats() if jax.default_backend() != "cpu" else None
    return found["peak_bytes_in_use"] if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), *sys.argv[2:5])))
