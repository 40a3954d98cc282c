"""python -m benchmarks.growth: how compiling grows with depth and batch, and a step with the length of its rows.

Ours alone, on CPU, with a prefix in every layer. What a step computes is counted in its program.
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

# As deep as models are, and narrow: compiling does not ask how wide they are.
NARROW = SIZES | {"hidden_size": 256, "intermediate_size": 688, "num_attention_heads": 4, "num_key_value_heads": 2}
DEPTHS, BATCHES, LENGTHS = (8, 16, 32, 64), (4, 8, 16, 32), (512, 1024, 2048, 4096)
TOKENS = 4096  # a step, whatever the rows' length
LEARNT = 16
REPEATS = 2


def main() -> None:
    jax.config.update("jax_enable_compilation_cache", False)
    depths = [(NARROW | {"num_hidden_layers": depth}, 8, 128) for depth in DEPTHS]
    batches = [(NARROW, batch, 128) for batch in BATCHES]
    for measured in (
        partial(compiling, "depth, layers", DEPTHS, depths),
        partial(compiling, "batch, rows", BATCHES, batches),
        lengths,
    ):
        row = measured()
        keep("growth", [row])
        print(table([row]), row["each"], sep="\n", flush=True)


class Step:
    """A step of random weights, lowered."""

    def __init__(self, values: dict[str, Any], batch: int, length: int) -> None:
        sizes = replace(DecoderConfig.parse(values), max_positions=max(LENGTHS))
        mesh, adapter = meshes.make_mesh("1x1"), PrefixTuning(10, "all", source="kv")
        self.frozen = jax.jit(decoder.init, static_argnums=1)(jax.random.key(0), sizes)
        config = RunConfig(method="none", batch=batch, max_length=length).with_adapter(adapter)
        programs = TrainPrograms(config, sizes, mesh, self.frozen, lambda _, length: [0] * length, 100)
        self.state = programs.init(self.frozen)
        rows = [Encoded(list(range(length - LEARNT)), [1] * LEARNT, cut=False)] * batch
        self.batch = programs.place(collate(rows, Bucket(length, LEARNT), batch, pad=0))
        began = time.perf_counter()
        self.lowered = programs.lower(self.batch)
        self.compiled = self.lowered.compile()
        self.compile_seconds = time.perf_counter() - began

    def seconds(self) -> list[float]:
        """Of steps after the first."""
        found = []
        for _ in range(REPEATS + 1):
            began = time.perf_counter()
            self.state, metrics = self.compiled(self.state, self.frozen, self.batch)
            jax.block_until_ready(metrics)
            found.append(time.perf_counter() - began)
        return found[1:]


def compiling(name: str, numbers: Sequence[int], settings: Sequence[tuple]) -> dict[str, Any]:
    """The longest over the shortest time that any of them takes to compile."""
    rounds = [[Step(*each).compile_seconds for each in settings] for _ in range(REPEATS)]
    each = [middle(list(times))[0] for times in zip(*rounds, strict=True)]
    return _row(f"compile time by {name}", dict(zip(numbers, each, strict=True)), max(each) / min(each), 1.2, "s")


def lengths() -> dict[str, Any]:
    """How many times as long a step of the longest rows takes as one of the shortest, over what it computes."""
    seconds, flops = {}, {}
    for length in LENGTHS:
        step = Step(SIZES, TOKENS // length, length)
        flops[length] = HloProgram.parse(step.lowered.as_text("hlo")).flops()
        seconds[length] = middle(step.seconds())[0]
    first, last = LENGTHS[0], LENGTHS[-1]
    ratio = (seconds[last] / seconds[first]) / (flops[last] / flops[first])
    each = {length: [TOKENS / seconds[length], flops[length] / seconds[length] / 1e9] for length in LENGTHS}
    row = _row("tokens/s and GFLOP/s by length, 4,096 tokens a step", {}, ratio, 1.0, "times as long as FLOPs say")
    return row | {"each": {length: [round(value, 1) for value in values] for length, values in each.items()}}


def _row(work: str, each: dict[int, float], ratio: float, target: float, unit: str) -> dict[str, Any]:
    """`ratio` is to be at most the target."""
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
        "each": {number: round(value, 2) for number, value in each.items()},
    }


if __name__ == "__main__":
    main()
