"""python -m benchmarks.evaluation: generation and scoring beside transformers and PEFT, in turn, in one run.

Both sides have the same weights, adapter, prompts and batch; it is checked that they say the same before anything is
said of their speed. On AMD processors PyTorch's MKL takes a slow path unless its vendor check is bypassed: both are
shown.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.sides import bypass, cores, keep, side
from benchmarks.work import BATCH, EQUAL, GENERATION, SCORING, write_model
from jaxprefix.models import adapter_init
from jaxprefix.models.adapters import LoRA, PrefixTuning, SoftPrompt
from jaxprefix.runs.base_model import open_base
from jaxprefix.runs.config import RunConfig
from jaxprefix.runs.saved import save_run

METHODS = {"prefix": PrefixTuning(10, "all"), "soft-prompt": SoftPrompt(10), "lora": LoRA(4, 8.0, "q,v")}
TARGETS = {SCORING: 3.0, GENERATION: 2.0, EQUAL: 2.0}
# Behind a soft prompt PEFT drops the positions of rows that are padded on the left: 41 of 64 answers were equal.
WORKS = {"prefix": (SCORING, GENERATION, EQUAL), "soft-prompt": (SCORING,), "lora": (SCORING, GENERATION)}
UNITS = {SCORING: "questions/s", GENERATION: "tokens/s", EQUAL: "tokens/s"}


def main() -> None:
    data, count, repeats = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    rows = []
    with tempfile.TemporaryDirectory() as place:
        base = write_model(Path(place) / "model", data)
        for name, adapter in METHODS.items():
            run, exported = write_adapters(Path(place), base, name, adapter)
            for work in WORKS[name]:
                rows.append(measure(work, name, base, run, exported, data, count, repeats))
                keep("evaluation", rows)


def write_adapters(place: Path, base: Path, name: str, adapter: Any) -> tuple[Path, Path]:
    """The same random adapter as a run of ours and in PEFT's format."""
    opened = open_base(str(base))
    config = RunConfig(model=str(base), method="none", dtype="float32", max_length=2048).with_adapter(adapter)
    random = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: (0.2 * random.normal(size=leaf.shape)).astype(np.float32),
        adapter_init.abstract_params(adapter, opened.config),
    )
    run, exported = place / name, place / f"{name}-peft"
    save_run(run, config, opened, params, "en")
    command = [sys.executable, "-m", "jaxprefix.peft", "export", str(run), str(exported)]
    subprocess.run(command, check=True, capture_output=True)
    return run, exported


def measure(
    work: str, method: str, base: Path, run: Path, exported: Path, data: Path, count: int, repeats: int
) -> dict[str, Any]:
    """The sides in turn, `repeats` times; each process answers twice, and the second time counts."""
    ours = ["benchmarks.ours", work, str(run), str(data), str(count), "2"]
    theirs = ["benchmarks.peer", work, str(base), str(exported), str(data), str(count), "2"]
    fast = bypass(base.parent) if method == "prefix" else None  # what it is worth does not depend on the method
    sides: dict[str, list[dict]] = {"ours": [], "peer": [], "bypassed": []}
    for _ in range(repeats):
        sides["ours"].append(side(ours))
        sides["peer"].append(side(theirs))
        if fast:
            sides["bypassed"].append(side(theirs, LD_PRELOAD=str(fast)))
    agreed = agreement(work, sides["ours"][0]["answers"], sides["peer"][0]["answers"])
    amount = sides["peer"][0]["amount"]  # of answers without their end tokens
    rate = {side: [amount / each["seconds"][-1] for each in found] for side, found in sides.items() if found}
    figure, peer = (statistics.median(rate[side]) for side in ("ours", "peer"))
    row = {
        "work": f"{work}, batch {BATCH}",
        "method": method,
        "device": cores(),
        "figure": round(figure, 2),
        "unit": UNITS[work],
        "peer": round(peer, 2),
        "ratio": round(figure / peer, 2),
        "target": TARGETS[work],
        "met": figure / peer >= TARGETS[work],
        "spread": {side: [round(min(each), 2), round(max(each), 2)] for side, each in rate.items()},
        "peer_bypassed": round(statistics.median(rate["bypassed"]), 2) if fast else None,
        "ratio_bypassed": round(figure / statistics.median(rate["bypassed"]), 2) if fast else None,
        "agreement": agreed,
        "compilations": sides["ours"][0]["compilations"],
        "buckets": sides["ours"][0]["buckets"],
    }
    print(json.dumps(row), flush=True)
    return row


def agreement(work: str, ours: list, theirs: list) -> dict[str, float]:
    """That both sides did the same work; AssertionError where they did not."""
    if work != SCORING:
        equal = sum(one == other for one, other in zip(ours, theirs, strict=True))
        assert equal >= 0.9 * len(ours), f"{equal} of {len(ours)} answers are equal"
        return {"equal_answers": equal / len(ours)}
    difference = float(np.abs(np.subtract(ours, theirs)).max())
    # Of sums near -117 with LoRA each side was 5.7e-4 from the peer in float64.
    most = 2e-5 * float(np.abs(theirs).max())
    assert difference < most, f"log-likelihoods differ by {difference}, expected at most {most}"
    return {"largest_difference": difference}


if __name__ == "__main__":
    main()
