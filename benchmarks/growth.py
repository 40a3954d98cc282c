"""python -m benchmarks.growth: how compile time grows with depth and batch, and step time with the length of the rows.

Only jaxprefix is measured, on CPU, with a prefix in every layer. The FLOPs of a step are counted in its program.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax

from benchmarks.sides import cores, keep, middle
from benchmarks.table import table
from benchmarks.work import SIZES
from jaxprefix.distributed import mesh as meshes
from jaxprefix.models import decoder
from jaxprefix.models.adapters import PrefixTuning
from jaxprefix.models.config import DecoderConfig
from jaxprefix.runs.config import RunConfig
from jaxprefix.tasks.encoding import Encoded
from jaxprefix.train.batches import Bucket, collate
from jaxprefix.train.dry_run.hlo import HloProgram
from jaxprefix.train.programs import TrainPrograms

# As deep as real models, but narrow: compile time does not depend on the width.
NARROW = SIZES | {"hidden_size": 256, "intermediate_size": 688, "num_attention_heads": 4, "num_key_value_heads": 2}
DEPTHS, BATCHES, LENGTHS = (8, 16, 32, 64), (4, 8, 16, 32), (512, 1024, 2048, 4096)
TOKENS = 4096  # per step, for rows of any length
LEARNT = 16
FLAT = 1.15  # the longest compile time over the shortest, at most
FALL = 1.1  # the FLOP/s of the shortest rows over those of the longest, at most
REPEATS = 2


def main() -> None:
    jax.config.update("jax_enable_compilation_cache", False)
    depths = [(NARROW | {"num_hidden_layers": depth}, 8, 128) for depth in DEPTHS]
    batches = [(NARROW, batch, 128) for batch in BATCHES]
    for measure in (
        partial(compiling, "depth, layers", DEPTHS, depths),
        partial(compiling, "batch, rows", BATCHES, batches),
        lengths,
    ):
        row = measure()
        keep("growth", [row])
        print(table([row]), row["each"], sep="\n", flush=True)


class Step:
    """A compiled training step with random weights."""

    def __init__(self, values: dict[str, Any], batch: int, length: int) -> None:
        sizes = replace(DecoderConfig.parse(values), max_positions=max(LENGTHS))
        mesh, adapter = meshes.make_mesh("1x1"), PrefixTuning(10, "all", source="kv")
        self.frozen = jax.jit(decoder.init, static_argnums=1)(jax.random.key(0), sizes)
        config = RunConfig(method="none", batch=batch, max_length=length).with_adapter(adapter)
        self.programs = TrainPrograms(config, sizes, mesh, self.frozen, lambda _, length: [0] * length, 100)
        self.state = self.programs.init(self.frozen)
        rows = [Encoded(list(range(length - LEARNT)), [1] * LEARNT, cut=False)] * batch
        self.batch = self.programs.place(collate(rows, Bucket(length, LEARNT), batch, pad=0))
        began = time.perf_counter()
        self.programs.step.compile(self.programs.state, self.frozen, self.batch)
        self.compile_seconds = time.perf_counter() - began

    def seconds(self) -> list[float]:
        """The times of the steps after the first."""
        times = []
        for _ in range(REPEATS + 1):
            began = time.perf_counter()
            self.state, metrics = self.programs.step(self.state, self.frozen, self.batch)
            jax.block_until_ready(metrics)
            times.append(time.perf_counter() - began)
        return times[1:]


def compiling(name: str, numbers: Sequence[int], settings: Sequence[tuple]) -> dict[str, Any]:
    """The ratio of the longest to the shortest compile time of the settings."""
    rounds = [[Step(*arguments).compile_seconds for arguments in settings] for _ in range(REPEATS)]
    medians = [middle(list(times))[0] for times in zip(*rounds, strict=True)]
    ratio = max(medians) / min(medians)
    return _row(f"compile time by {name}", dict(zip(numbers, medians, strict=True)), ratio, FLAT, "s")


def lengths() -> dict[str, Any]:
    """The time of a step with the longest rows over one with the shortest, divided by the ratio of their FLOPs."""
    seconds, flops = {}, {}
    for length in LENGTHS:
        step = Step(SIZES, TOKENS // length, length)
        flops[length] = HloProgram.parse(step.programs.lower(step.batch).as_text("hlo")).flops()
        seconds[length] = middle(step.seconds())[0]
    first, last = LENGTHS[0], LENGTHS[-1]
    ratio = (seconds[last] / seconds[first]) / (flops[last] / flops[first])
    rates = {length: [TOKENS / seconds[length], flops[length] / seconds[length] / 1e9] for length in LENGTHS}
    row = _row("tokens/s and GFLOP/s by length, 4,096 tokens a step", {}, ratio, FALL, "times as long as FLOPs say")
    return row | {"each": {length: [round(value, 1) for value in values] for length, values in rates.items()}}


def _row(work: str, values: dict[int, float], ratio: float, target: float, unit: str) -> dict[str, Any]:
    """A row of results; the target is met if `ratio` is at most `target`."""
    return {
        "work": work,
        "method": "prefix",
        "device": cores(),
        "figure": round(ratio, 2),
        "unit": "× " + ("the shortest" if unit == "s" else unit),
        "peer": None,
        "ratio": None,
        "target": target,
        "met": ratio <= target,
        "each": {number: round(value, 2) for number, value in values.items()},
    }


if __name__ == "__main__":
    main()
