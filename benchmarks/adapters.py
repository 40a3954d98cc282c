"""python -m benchmarks.adapters: one batch whose rows use 1, 4 or 16 adapters of a kind, beside a batch with one.

The 124.7M Llama with random weights, 16 rows of 128 tokens in float32. Scoring has four choices of one token, and
generation 32 tokens more. The counts take turns, so that the machine's own changes of speed meet all of them.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import decoding
from benchmarks.sides import cores, keep
from benchmarks.table import table
from benchmarks.work import NO_ENDS, SIZES
from jaxprefix.models import adapter_init, decoder, scoring
from jaxprefix.models.adapters import Adapter, LoRA, PrefixTuning
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.decoder import Batch
from jaxprefix.models.hooks import Hooks
from jaxprefix.models.layers import unstack

METHODS: dict[str, Adapter] = {
    "prefix": PrefixTuning(10, "all", source="kv"),
    "lora": LoRA(8, 16.0, "q,v"),
    "lora-all": LoRA(16, 32.0, "q,k,v,o,gate,up,down"),
}
ROWS, TIME, NEW, CHOICES = 16, 128, 32, 4
COUNTS = (1, 4, 16)
ROUNDS = 5
TARGET = 1.3

Run = Callable[[], jax.Array]


def main(sizes: dict[str, Any] = SIZES) -> list[dict[str, Any]]:
    config = DecoderConfig.parse(sizes)
    frozen = jax.jit(lambda key: unstack(decoder.init(key, config)))(jax.random.key(0))
    rows = []
    for name, adapter in METHODS.items():
        for work in (score, generate):
            seconds = _in_turn({count: _run(work, config, frozen, adapter, count) for count in COUNTS})
            rows += [_row(work.__name__, name, count, seconds) for count in COUNTS[1:]]
    print(table(rows))
    return rows


def score(config: DecoderConfig, weights: Any, hooks: Hooks) -> jax.Array:
    choices = jnp.broadcast_to(jnp.arange(CHOICES, dtype=jnp.int32), (ROWS, CHOICES))
    lengths = jnp.ones((ROWS, CHOICES), jnp.int32)
    return scoring.choices(config, weights, _batch(config), hooks, choices, lengths)[0]


def generate(config: DecoderConfig, weights: Any, hooks: Hooks) -> jax.Array:
    return decoding.generate(config, weights, _batch(config), hooks, NEW, NO_ENDS)[0]


def _run(work: Callable, config: DecoderConfig, frozen: Any, adapter: Adapter, count: int) -> Run:
    """The work with `count` random adapters, of which the rows use each equally often. One is bound as usual."""
    random = np.random.default_rng(0)
    shapes = adapter_init.abstract_params(adapter, config)
    many = () if count == 1 else (count,)
    params = jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=(*many, *leaf.shape)), jnp.float32), shapes)
    ids = None if count == 1 else jnp.arange(ROWS) % count

    @jax.jit
    def run(frozen: Any, params: Any, ids: jax.Array | None) -> jax.Array:
        return work(config, *adapter.bind(config, params, frozen, adapter_ids=ids))

    return partial(run, frozen, params, ids)


def _batch(config: DecoderConfig) -> Batch:
    tokens = np.random.default_rng(1).integers(0, config.vocabulary_size, (ROWS, TIME))
    return Batch.right_padded(jnp.asarray(tokens, jnp.int32), jnp.full(ROWS, TIME))


def _in_turn(runs: dict[int, Run]) -> dict[int, list[float]]:
    """The seconds of each run in each round. A round before them compiles."""
    seconds: dict[int, list[float]] = {count: [] for count in runs}
    for number in range(ROUNDS + 1):
        for count, run in runs.items():
            began = time.perf_counter()
            jax.block_until_ready(run())
            if number:
                seconds[count].append(time.perf_counter() - began)
    return seconds


def _row(work: str, method: str, count: int, seconds: dict[int, list[float]]) -> dict[str, Any]:
    """The time with `count` adapters over that with one, by round."""
    ratios = [many / one for many, one in zip(seconds[count], seconds[COUNTS[0]], strict=True)]
    figure = statistics.median(ratios)
    return {
        "work": f"{work}, {count} adapters in {ROWS} rows",
        "method": method,
        "device": cores(),
        "figure": round(figure, 2),
        "unit": "× the time of one",
        "peer": None,
        "ratio": None,
        "target": TARGET,
        "met": figure <= TARGET,
        "spread": {"ours": [round(min(ratios), 2), round(max(ratios), 2)]},
        "seconds": round(statistics.median(seconds[count]), 3),
    }


if __name__ == "__main__":
    keep("adapters", main())
