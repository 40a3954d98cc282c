"""The parts of gpu.py and cpu.py: what is measured on one machine. Each returns rows of results."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import steps, useful
from benchmarks.sides import middle, side
from jaxprefix.models.config import DecoderConfig

STEPS = 6  # per process; the first is not timed
LEARNT = 16  # tokens per row
BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}  # of losses and of attention, as a share
CHOICES_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.3}  # of log-likelihoods; the model is random
EQUAL_SHARE = 0.5  # of the first tokens: in half precision random weights have near ties, where answers diverge
COMPILES = 120  # seconds that torch.compile and its steps take, at most; with less time left it is not tried

# NVIDIA NeMo AutoModel (torch), 2026-06: Llama 3.1 8B with LoRA of rank 16 on all projections, on one H100.
PUBLISHED = {"tokens/s": 12_473.0, "tflops": 402.0}

Row = dict[str, Any]


@dataclass(frozen=True)
class Targets:
    """Ratios to the peer, and shares of the machine's rate of matrix products or copies."""

    train: float = 1.3
    train_full: float = 1.1
    train_share: float = 0.6
    decode: float = 3.0
    decode_fast: float = 3.0  # in a lower precision than the peer
    decode_share: float = 0.7
    scoring: float = 3.0
    scoring_share: float = 0.65


@dataclass(frozen=True)
class Size:
    """A model, the batches that it is measured on, and what they should reach."""

    values: dict[str, Any]
    dtype: str
    rows: int  # of a batch, in training and scoring
    time: int  # tokens per row
    answers: int  # rows of a batch, in generation
    new: int  # tokens per answer
    long_rows: int  # of a batch in the published setting
    long_time: int
    modes: Sequence[str] = ("sdpa compiled", "sdpa eager")  # of the peer's training, the fastest first
    targets: Targets = Targets()


@dataclass
class Bench:
    """The folder that the sides read, and what they have measured so far."""

    folder: Path
    sizes: DecoderConfig
    size: Size
    until: float  # the time.monotonic at which the present part ends
    alone: bool = False  # without the peer
    peer_environment: Mapping[str, str] = field(default_factory=dict)
    rows: tuple[int, ...] = ()  # what write_rows wrote last
    measured: dict[Any, Row] = field(default_factory=dict)

    @property
    def left(self) -> float:
        return self.until - time.monotonic()

    def side(self, *command: str) -> Row:
        """The result of a side, which runs once for the same rows. RuntimeError if it fails, or takes longer than the
        part may.
        """
        key = (command, self.rows if str(self.folder) in command else ())
        if key not in self.measured:
            if self.left <= 0:
                raise RuntimeError(f"no time was left for {' '.join(command)}")
            environment = self.peer_environment if command[0].endswith("_peer") else None
            self.measured[key] = side(list(command), environment, self.left)
            print(f"{' '.join(command)}: {self.measured[key]}"[:2000], file=sys.stderr, flush=True)
        return self.measured[key]

    def first(self, *command: str, settings: Sequence[str]) -> Row:
        """The result of the first setting that works: "full" may, where memory is too short for "dots"."""
        failure = RuntimeError(f"{' '.join(command)} has no settings")
        for setting in settings:
            try:
                return self.side(*command, *setting.split()) | {"setting": setting}
            except RuntimeError as error:
                failure = error
                print(f"{' '.join(command)} {setting}: {_last_line(error)}", file=sys.stderr, flush=True)
        raise failure

    def peer(self, measure: Callable[[], Row]) -> Row | None:
        """The peer's result, or None if it is not wanted or could not be measured: then ours is kept alone."""
        if self.alone:
            return None
        try:
            return measure()
        except RuntimeError as error:
            print(f"the peer was not measured: {_last_line(error)}", file=sys.stderr, flush=True)
            return None

    def write_rows(self, count: int, rows: int, time: int, learnt: int) -> None:
        self.rows = (count, rows, time, learnt)
        steps.write_rows(self.folder, steps.random_rows(self.sizes, *self.rows))

    @property
    def matrix_rate(self) -> float:
        """FLOP/s of a large matrix product, measured in a process of its own."""
        return self.side("benchmarks.rates", "matrix")["rate"]

    @property
    def copy_rate(self) -> float:
        """Bytes per second that a copy reads and writes, measured in a process of its own."""
        return self.side("benchmarks.rates", "copy")["rate"]

    @property
    def device(self) -> str:
        return self.side("benchmarks.rates", "matrix")["device"]


def correct(bench: Bench) -> list[Row]:
    """Attention after a prefix: outputs and gradients, beside a softmax in float32."""
    result = bench.side("benchmarks.kernels")
    for case in result["cases"]:
        print(case, flush=True)
    worst = max(error for case in result["cases"] for error in case["errors"].values())
    row = {
        "work": f"largest error of attention and its gradients, {len(result['cases'])} cases",
        "method": "prefix",
        "device": result["device"],
        "figure": float(f"{worst:.2g}"),
        "unit": "of the largest value",
        "peer": None,
        "ratio": None,
        "target": TOLERANCE[bench.size.dtype],
        "met": worst <= TOLERANCE[bench.size.dtype],
        "cases": result["cases"],
    }
    return [row | ({} if row["met"] else {"failed": f"attention is off by {worst:.2g}"})]


def published(bench: Bench) -> list[Row]:
    """LoRA of rank 16 on all projections, every position learnt, beside the figures that NVIDIA publishes for torch."""
    size = bench.size
    bench.write_rows(STEPS, size.long_rows, size.long_time, size.long_time - 1)
    ours = _train_ours(bench, "lora-all")
    tokens, is_same = size.long_rows * size.long_time, "H100" in bench.device
    work = f"training, {size.long_rows} × {size.long_time:,} tokens, all learnt, beside published"
    row = _row(work, "lora-all", bench.device, "tokens/s", tokens, ours, None, 1.0)
    if is_same:
        row |= _ratio(row["figure"], PUBLISHED["tokens/s"], row["target"])
    row["tflops"] = round(row["figure"] * PUBLISHED["tflops"] / PUBLISHED["tokens/s"], 1)  # by the published count
    useful_flops = useful.training_flops(bench.sizes, tokens, tokens)
    row["mfu"], row["mfu_target"] = round(useful_flops * row["figure"] / tokens / bench.matrix_rate, 3), 0.6
    return [row]


def train(bench: Bench, method: str, all_learnt: bool = False) -> list[Row]:
    """Tokens/s and MFU (useful FLOP/s over the measured rate of matrix products), beside PEFT."""
    size, targets = bench.size, bench.size.targets
    learnt = size.time - 1 if all_learnt else min(LEARNT, size.time // 2)
    bench.write_rows(STEPS, size.rows, size.time, learnt)
    ours = _train_ours(bench, method)
    modes = size.modes if bench.left > COMPILES else ("sdpa eager",)
    command = ("benchmarks.train_peer", str(bench.folder), method, size.dtype)
    theirs = bench.peer(lambda: bench.first(*command, settings=modes))
    tokens = size.rows * size.time
    work = f"training, {size.rows} × {size.time} tokens" + (", all learnt" if all_learnt else "")
    work += ", peer not compiled" if theirs and theirs["setting"] != size.modes[0] else ""
    target = targets.train_full if method == "full" else targets.train
    row = _row(work, method, bench.device, "tokens/s", tokens, ours, theirs, target)
    useful_flops = useful.training_flops(bench.sizes, tokens, size.rows * (learnt + 1), method == "full")
    row["mfu"] = round(useful_flops * row["figure"] / tokens / bench.matrix_rate, 3)
    row["mfu_target"] = targets.train_share
    if theirs:
        share = float(np.max(np.abs(np.subtract(ours["losses"], theirs["losses"])) / np.abs(theirs["losses"])))
        row |= _agreement({"largest_share": share}, share <= TOLERANCE[size.dtype], "the losses differ")
    return [row]


def _train_ours(bench: Bench, method: str) -> Row:
    command = ("benchmarks.train_ours", str(bench.folder), method, bench.size.dtype)
    return bench.first(*command, settings=("dots", "full"))


def decode(bench: Bench, dtype: str | None = None, rows: int | None = None) -> list[Row]:
    """Tokens/s after the first token. The bound is one read of weights and cache per step at the measured copy rate.

    With a dtype, the peer is the same as without. int8 has the projections in eight bits, and nothing else. `rows`
    replaces the number of rows.
    """
    size = replace(bench.size, answers=rows or bench.size.answers)
    bench.write_rows(1, size.answers, size.time, 1)
    command = ("decode", size.dtype, str(size.new))
    ours = bench.side("benchmarks.answer_ours", str(bench.folder), "decode", dtype or size.dtype, str(size.new))
    theirs = bench.peer(lambda: bench.side("benchmarks.answer_peer", str(bench.folder), *command))
    tokens = size.answers * (size.new - 1)
    work = f"decode, {size.answers} × {size.time} tokens" + (f", {dtype}" if dtype else "")
    target = size.targets.decode_fast if dtype else size.targets.decode
    row = _row(work, "none", bench.device, "tokens/s", tokens, ours, theirs, target)
    layers = dtype or size.dtype
    widths = BYTES[size.dtype if layers == "int8" else layers], BYTES[layers]
    least = useful.decode_bytes(bench.sizes, size.answers, size.time + size.new / 2, *widths)
    row["bandwidth_share"] = round(least / bench.copy_rate / (size.answers / row["figure"]), 3)
    row["bandwidth_target"] = size.targets.decode_share
    if theirs:
        equal = np.equal(ours["answers"], theirs["answers"])
        shares = {"equal_tokens": float(equal.mean()), "equal_first_tokens": float(equal[:, :4].mean())}
        agrees = dtype is not None or shares["equal_first_tokens"] >= EQUAL_SHARE  # else it is another model
        row |= _agreement(shares, agrees, "the first tokens differ")
    return [row]


def scoring(bench: Bench, dtype: str | None = None) -> list[Row]:
    """Questions/s with four choices of one token per prompt, as in Belebele.

    With a dtype, the peer is the same as without, and no log-likelihoods have to agree.
    """
    size = bench.size
    bench.write_rows(1, size.rows, size.time, 1)
    ours = bench.side("benchmarks.answer_ours", str(bench.folder), "scoring", dtype or size.dtype, "4")
    theirs = bench.peer(lambda: bench.side("benchmarks.answer_peer", str(bench.folder), "scoring", size.dtype, "4"))
    work = f"scoring, {size.rows} × {size.time} tokens, 4 choices" + (f", {dtype}" if dtype else "")
    row = _row(work, "none", bench.device, "questions/s", size.rows, ours, theirs, size.targets.scoring)
    if dtype is None:  # the rate is of this dtype
        useful_flops = 2 * useful.needed_products(bench.sizes, size.rows * (size.time - 1), size.rows)
        row["mfu"] = round(useful_flops * row["figure"] / size.rows / bench.matrix_rate, 3)
        row["mfu_target"] = size.targets.scoring_share
    if theirs:
        difference = float(np.abs(np.subtract(ours["answers"], theirs["answers"])).max())
        agrees = dtype is not None or difference < CHOICES_TOLERANCE[size.dtype]
        row |= _agreement({"largest_difference": difference}, agrees, "the log-likelihoods differ")
    return [row]


def start(bench: Bench) -> list[Row]:
    """Seconds from command to first step with cached programs, over the seconds that reading the weights takes."""
    size = bench.size
    bench.write_rows(1, size.rows, size.time, min(LEARNT, size.time // 2))
    command = ["benchmarks.train_ours", str(bench.folder), "lora", size.dtype, "dots", "together"]
    first, second, read = _timed(bench, command), _timed(bench, command), _read_time(bench.folder / "model")
    row = {
        "work": "start, programs compiled before, beside reading the weights",
        "method": "lora",
        "device": bench.device,
        "figure": round(second, 2),
        "unit": "s",
        "peer": round(read, 2),
        "ratio": round(second / read, 2),
        "target": 1.5,
        "met": second / read <= 1.5,
        "first_time_s": round(first, 2),
    }
    return [row]


def _timed(bench: Bench, command: list[str]) -> float:
    began = time.perf_counter()
    side(command, seconds=bench.left)
    return time.perf_counter() - began


def _read_time(folder: Path) -> float:
    began = time.perf_counter()
    for path in folder.glob("*.safetensors"):
        with path.open("rb", buffering=0) as file:
            while file.read(2**24):
                pass
    return time.perf_counter() - began


def _row(
    work: str, method: str, device: str, unit: str, amount: int, ours: Row, theirs: Row | None, target: float
) -> Row:
    """A row of results. The first of the measured times does not count."""
    figure, spread = _rate(amount, ours)
    other, others = _rate(amount, theirs) if theirs else (None, None)
    row = {"work": work, "method": method, "device": device, "figure": figure, "unit": unit}
    row |= {"peer": None, "ratio": None, "target": target, "met": None} | _ratio(figure, other, target)
    return row | {
        "spread": {"ours": spread} | ({"peer": others} if others else {}),
        "memory_mb": [round(result["memory"] / 1e6) for result in (ours, theirs) if result],
        "compile_s": ours.get("compile"),
        "settings": [result.get("setting") for result in (ours, theirs) if result],
    }


def _rate(amount: int, result: Row) -> tuple[float, list[float]]:
    figure, spread = middle([amount / seconds for seconds in result["seconds"][1:]])
    return round(figure, 1), spread


def _ratio(figure: float, other: float | None, target: float) -> Row:
    if other is None:
        return {}
    return {"peer": other, "ratio": round(figure / other, 2), "met": figure / other >= target}


def _agreement(found: Row, agrees: bool, failure: str) -> Row:
    """The agreement of both sides. Figures of sides that differ are kept, but meet no target."""
    return {"agreement": found} | ({} if agrees else {"met": False, "failed": f"{failure}: {found}"})


def _last_line(error: Exception) -> str:
    return str(error).splitlines()[-1][:300]


# Each part, and the seconds that it may take of the default 510. What a part leaves is the next one's.
Parts = Mapping[str, tuple[Callable[[Bench], list[Row]], int]]
PARTS: Parts = {
    "correct": (correct, 45),
    "published": (published, 50),
    "train": (partial(train, method="lora"), 125),
    "decode": (decode, 75),
    "scoring": (scoring, 50),
    "int8": (partial(decode, dtype="int8"), 75),
    "prefix": (partial(train, method="prefix"), 45),
    "dora": (partial(train, method="dora"), 45),
    "start": (start, 60),
}
