"""python -m benchmarks.training DATA REPEATS [WORK]: training steps beside transformers and PEFT on CPU.

Both sides take turns in one run, with the same weights, adapter and rows, and their losses are compared.
"""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import steps
from benchmarks.sides import bypass, cores, keep, middle, side, torch_dtype
from benchmarks.table import table
from benchmarks.work import SIZES, write_tokenizer
from jaxprefix.io.rows import read_rows
from jaxprefix.text.tokenizer import load_tokenizer

BATCH, TIME = 8, 256
STEPS = 4  # per process; the first is not timed
METHODS = ("prefix", "llama-adapter", "soft-prompt", "lora")


@dataclass(frozen=True)
class Peer:
    """A setting of transformers and PEFT, with the target for our ratio to it, if there is one."""

    name: str
    target: float | None
    dtype: str = "float32"
    is_bypassed: bool = False


INSTALLED = Peer("installed", 2.5)
FAST = Peer("MKL bypassed", 1.4, is_bypassed=True)
SHOWN = Peer("MKL bypassed", None, is_bypassed=True)
BEST = Peer(f"{torch_dtype()}, MKL bypassed", 1.0, torch_dtype(), is_bypassed=True)


@dataclass(frozen=True)
class Work:
    """Training steps on rows of which only the response (`is_short`) or every token is learnt."""

    name: str
    is_short: bool
    methods: Sequence[str]
    peers: Sequence[Peer]


WORKS = (
    Work("training, responses learnt", True, METHODS, (INSTALLED, FAST)),
    Work("training, best against best", True, ("prefix", "lora"), (BEST,)),
    Work("training, every token learnt", False, ("prefix", "lora"), (Peer("installed", 1.8), SHOWN)),
    Work("full fine-tuning, every token learnt", False, ("full",), (Peer("installed", 1.3), SHOWN)),
    Work("full fine-tuning, responses learnt", True, ("full",), (Peer("installed", 1.3), SHOWN)),
)


def main() -> None:
    data, repeats = Path(sys.argv[1]), int(sys.argv[2])
    chosen = [work for work in WORKS if len(sys.argv) < 4 or sys.argv[3] in work.name]
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sizes = steps.write_model(folder, SIZES, np.float32)
        steps.write_adapters(folder, sizes, [*METHODS, "full"])
        write_tokenizer(folder / "model", data, sizes.vocabulary_size)
        for work in chosen:
            steps.write_rows(folder, qa_rows(folder / "model", data, work.is_short))
            for method in work.methods:
                results += measure(folder, work, method, repeats)
                keep("training", results)
    print(table(results))


def qa_rows(model: Path, data: Path, is_short: bool) -> list[list[tuple[list[int], int]]]:
    """Real questions with passage and answer, cut from the left to TIME tokens. Shorter rows are skipped."""
    tokenizer = load_tokenizer(model)
    rows: list[tuple[list[int], int]] = []
    for row in read_rows(data / "google" / "xquad" / "xquad.en" / "validation.jsonl"):
        prompt = tokenizer.prompt_ids(f"{row['context']}\nQuestion: {row['question']}\nAnswer:\n")
        response = tokenizer.response_ids(row["answers"]["text"][0])
        ids = (prompt + response)[-TIME:]
        if len(ids) == TIME:
            rows.append((ids, TIME - len(response) if is_short else 1))
        if len(rows) == STEPS * BATCH:
            break
    return [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]


def measure(folder: Path, work: Work, method: str, repeats: int) -> list[dict[str, Any]]:
    """A row of results for each peer. The sides run in turn, `repeats` times."""
    ours, theirs = [], {peer: [] for peer in work.peers}
    for _ in range(repeats):
        ours.append(side(["benchmarks.train_ours", str(folder), method, "float32", "dots"]))
        for peer, runs in theirs.items():
            runs.append(_run_peer(folder, method, peer))
    return [row(work, method, ours, peer, runs) for peer, runs in theirs.items()]


def _run_peer(folder: Path, method: str, peer: Peer) -> dict[str, Any]:
    fast = bypass(folder) if peer.is_bypassed else None
    environment = {"LD_PRELOAD": str(fast)} if fast else {}
    return side(["benchmarks.train_peer", str(folder), method, peer.dtype, "sdpa", "eager"], environment)


def row(work: Work, method: str, ours: list[dict], peer: Peer, theirs: list[dict]) -> dict[str, Any]:
    tokens = BATCH * TIME
    figure, spread = middle([tokens / second for run in ours for second in run["seconds"][1:]])
    other, others = middle([tokens / second for run in theirs for second in run["seconds"][1:]])
    memory = [middle([run["memory"] / 1e6 for run in runs])[0] for runs in (ours, theirs)]
    return {
        "work": f"{work.name}, beside {peer.name}",
        "method": method,
        "device": cores(),
        "figure": round(figure, 1),
        "unit": "tokens/s",
        "peer": round(other, 1),
        "ratio": round(figure / other, 2),
        "target": peer.target,
        "met": peer.target is None or figure / other >= peer.target,
        "spread": {"ours": spread, "peer": others},
        "memory_mb": [round(megabytes) for megabytes in memory],
        "compile_s": round(middle([run["compile"] for run in ours])[0], 1),
        "first_step_s": [round(middle([run["first_step"] for run in runs])[0], 1) for runs in (ours, theirs)],
        "agreement": agreement(ours[0]["losses"], theirs[0]["losses"], 1e-4 if peer.dtype == "float32" else 2e-2),
    }


def agreement(ours: list[float], theirs: list[float], tolerance: float) -> dict[str, float]:
    """The largest relative difference of the losses; AssertionError if it exceeds the tolerance."""
    share = float(np.max(np.abs(np.subtract(ours, theirs)) / np.abs(theirs)))
    assert share <= tolerance, f"losses differ by {share:.1e}: {ours}, {theirs}"
    return {"largest_share": share}


if __name__ == "__main__":
    main()
