"""One measured side: jaxprefix trains on the rows of a folder; prints JSON.

python -m benchmarks.train_ours FOLDER METHOD DTYPE REMAT [together]
"""

import json
import resource
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax

from benchmarks.steps import RATE, read_adapter, read_rows
from jaxprefix.distributed import mesh as meshes
from jaxprefix.models.config import DecoderConfig
from jaxprefix.runs.base_model import BaseModel, load_weights
from jaxprefix.runs.config import RunConfig
from jaxprefix.train.batches import Plan, buckets, collate
from jaxprefix.train.programs import TrainPrograms, load_and_compile

NO_TOKENIZER: Any = SimpleNamespace(pad=0, vocabulary_size=2)  # the rows are already tokenized


def main(folder: Path, method: str, dtype: str, remat: str, order: str = "in turn") -> dict[str, Any]:
    """`order` "together" compiles while the weights load, as a run does; then the two are not timed separately."""
    began = time.perf_counter()
    sizes, rows, mesh = DecoderConfig.read(folder / "model"), read_rows(folder), meshes.make_mesh("1x1")
    adapter, params = read_adapter(folder, sizes, method)
    settings: dict[str, Any] = {"batch": rows.batch, "max_length": rows.time, "dtype": dtype, "remat": remat}
    settings |= {"lr": RATE, "steps": len(rows.steps), "warmup": 0.0, "weight_decay": 0.0, "clip": 0.0}
    config = RunConfig(method="none", **settings).with_adapter(adapter)
    base = BaseModel("", folder / "model", sizes, NO_TOKENIZER, "")
    together = [row for step in rows.steps for row in step]
    [bucket] = buckets(together)
    batches = [meshes.shard_batch(mesh, collate(step, bucket, rows.batch, pad=0), dim=1) for step in rows.steps]
    if order == "together":
        frozen, programs = load_and_compile(config, base, mesh, Plan(config, together), 0)
        loaded = time.perf_counter()
    else:
        frozen = jax.block_until_ready(load_weights(base, mesh, dtype))
        loaded = time.perf_counter()
        programs = TrainPrograms(config, sizes, mesh, frozen, lambda _, length: [0] * length, config.steps or 1)
        programs.step.compile(programs.state, frozen, batches[0])
    compiled = time.perf_counter()
    state = programs.init(frozen, params)
    seconds, losses, ready = [], [], time.perf_counter()
    for batch in batches:
        start = time.perf_counter()
        state, metrics = programs.step(state, frozen, batch)
        losses.append(float(metrics["loss"]))
        seconds.append(time.perf_counter() - start)
    return {
        "seconds": seconds,
        "losses": losses,
        "load": loaded - began,
        "compile": compiled - loaded,
        "first_step": ready - began + seconds[0],
        "memory": peak_memory(),
    }


def peak_memory() -> int:
    """The largest number of bytes in use so far, of the accelerator or of the process on CPU."""
    stats = jax.devices()[0].memory_stats() if jax.default_backend() != "cpu" else None
    return stats["peak_bytes_in_use"] if stats else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), *sys.argv[2:6])))
