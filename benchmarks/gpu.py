"""python -m benchmarks.gpu: jaxprefix beside transformers and PEFT, on one accelerator, in less than nine minutes.

It needs jax, flax, optax, orbax, torch, transformers and PEFT, and no network. Each part prints its table and keeps its
results as it ends; a part that fails, or for which no time is left, costs the others nothing.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax

from benchmarks import steps
from benchmarks.accelerator import PARTS, Bench, Parts, Row, Size
from benchmarks.sides import RESULTS, keep
from benchmarks.table import table

LLAMA_8B = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 128_256,
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 8192,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 500_000.0,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
TINY = LLAMA_8B | {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}
SIZES = {
    "8b": Size(LLAMA_8B, "bfloat16", 16, 512, 64, 64, 2, 4096),
    "tiny": Size(TINY, "float32", 4, 32, 4, 8, 2, 64),
}
METHODS = ("lora", "lora-all", "prefix", "dora")
DEFAULT = [part for part in PARTS if part != "start"]
SECONDS = 510


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """The rows of all parts. SystemExit if a part failed, after all of them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--parts", default=",".join(DEFAULT), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--size", choices=SIZES, default="8b", help="tiny tries the same on a CPU")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="the time for all parts together")
    parser.add_argument("--alone", action="store_true", help="without transformers and PEFT, in a third of the time")
    parser.add_argument("--output", type=Path, help=f"the folder of the results; 8b writes to {RESULTS} without it")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.parts.split(",")) - set(PARTS):
        parser.error(f"--parts {','.join(sorted(unknown))} unknown; expected some of {','.join(PARTS)}")
    output = chosen.output or (RESULTS if chosen.size == "8b" else None)
    parts = {f"gpu-{name}": PARTS[name] for name in chosen.parts.split(",")}
    rows, failures = run(parts, SIZES[chosen.size], METHODS, chosen.seconds, output, chosen.alone)
    print(f"\nall parts:\n{table(rows)}", flush=True)
    if failures:
        sys.exit("failed: " + "; ".join(failures))
    return rows


def run(
    parts: Parts,
    size: Size,
    methods: Sequence[str],
    seconds: float,
    output: Path | None,
    alone: bool = False,
    peer_environment: Mapping[str, str] | None = None,
) -> tuple[list[Row], list[str]]:
    """The rows of the parts, which are also printed and kept as they come, and what failed."""
    # This process converts adapters. On the accelerator it would reserve the memory that the sides need.
    jax.config.update("jax_platforms", "cpu")
    end = time.monotonic() + seconds
    rows, failures = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sizes = steps.write_model(folder, size.values, steps.DTYPES[size.dtype])
        steps.write_adapters(folder, sizes, list(methods))
        bench, began = Bench(folder, sizes, size, end, alone, peer_environment or {}), time.monotonic()
        total, so_far = sum(share for _, share in parts.values()), 0
        for part, (measure, share) in parts.items():
            so_far += share
            bench.until = began + (end - began) * so_far / total
            try:
                found = measure(bench)
            except (RuntimeError, OSError) as error:
                failures.append(f"{part}: {str(error).splitlines()[-1][:300]}")
                print(f"{failures[-1]}\n{error}", file=sys.stderr, flush=True)
                continue
            print(f"\n{part}, {bench.left:.0f} s before its end:\n{table(found)}", flush=True)
            if output:
                keep(part, found, output)
            failures += [f"{part}: {row['failed']}" for row in found if "failed" in row]
            rows += found
    return rows, failures


if __name__ == "__main__":
    main()
