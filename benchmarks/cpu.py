"""python -m benchmarks.cpu: jaxprefix beside transformers and PEFT on CPU, and beside the machine's own limits.

A Llama of 124.7M parameters with random weights and rows, in float32 where a row names no other dtype. The rates of
matrix products and copies are measured in the same run. PyTorch is at its best: MKL's vendor check is bypassed, which
makes a difference on AMD; --installed leaves it as pip installs it.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks import gpu
from benchmarks.accelerator import Parts, Row, Size, Targets, decode, scoring, train
from benchmarks.sides import RESULTS, bypass
from benchmarks.table import table
from benchmarks.work import SIZES

METHODS = ("prefix", "llama-adapter", "soft-prompt", "lora", "dora", "full")
TARGETS = Targets(train=1.25, train_share=0.7, decode=1.6, decode_fast=2.2, decode_share=0.65)
# Of a Size, the last numbers are the batch of gpu.py's `published`, which is not measured here.
SIZE = Size(SIZES, "float32", 8, 256, 16, 64, 1, 1, ("sdpa eager",), TARGETS)
TINY = Size(gpu.TINY, "float32", 4, 32, 4, 8, 1, 1, ("sdpa eager",), TARGETS)
INSTALLED = 1.5  # the target beside PyTorch as it is
SECONDS = 3600


def parts() -> Parts:
    """Every method with 16 learnt positions per row and with all, then generation and scoring."""
    training = {
        f"cpu-{method}{'-all' if all_learnt else ''}": partial(train, method=method, all_learnt=all_learnt)
        for all_learnt in (False, True)
        for method in METHODS
    }
    answers = {
        "cpu-decode": decode,
        "cpu-decode-1": partial(decode, rows=1),
        "cpu-decode-bfloat16": partial(decode, dtype="bfloat16"),
        "cpu-decode-int8": partial(decode, dtype="int8"),
        "cpu-scoring": scoring,
        "cpu-scoring-bfloat16": partial(scoring, dtype="bfloat16"),
        "cpu-scoring-int8": partial(scoring, dtype="int8"),
    }
    return {name: (measure, 120) for name, measure in (training | answers).items()}


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """The rows of all parts. SystemExit if a part failed, after all of them."""
    known = {name.removeprefix("cpu-"): part for name, part in parts().items()}
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cpu", description=__doc__)
    parser.add_argument("--parts", default=",".join(known), help=f"some of {','.join(known)}")
    parser.add_argument("--size", choices=("124m", "tiny"), default="124m")
    parser.add_argument("--installed", action="store_true", help="PyTorch as it is, with MKL's vendor check")
    parser.add_argument("--output", type=Path, help=f"the folder of the results; 124m writes to {RESULTS} without it")
    given = parser.parse_args(arguments)
    if unknown := set(given.parts.split(",")) - set(known):
        parser.error(f"--parts {','.join(sorted(unknown))} unknown; expected some of {','.join(known)}")
    chosen = {f"cpu-{name}": known[name] for name in given.parts.split(",")}
    output = given.output or (RESULTS if given.size == "124m" else None)
    with tempfile.TemporaryDirectory() as folder:
        library = None if given.installed else bypass(Path(folder))
        environment = {"LD_PRELOAD": str(library)} if library else {}
        size = SIZE if given.size == "124m" else TINY
        if given.installed:
            size = replace(size, targets=replace(TARGETS, train=INSTALLED))
        rows, failures = gpu.run(chosen, size, METHODS, SECONDS, output, peer_environment=environment)
    print(f"\nall parts:\n{table(rows)}", flush=True)
    if failures:
        sys.exit("failed: " + "; ".join(failures))
    return rows


if __name__ == "__main__":
    main()
