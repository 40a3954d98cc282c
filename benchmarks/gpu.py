"""python -m benchmarks.gpu PART [SIZE] [METHODS]: one accelerator, the project beside transformers and PEFT.

PART is train, decode, scoring or start; SIZE is 8b (Llama 3.1 8B's shapes, random weights, bfloat16) or tiny, which
tries the same on a CPU. Each part takes minutes and needs jax, flax, optax, orbax, torch, transformers and PEFT.
"""

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import steps
from benchmarks.sides import keep, middle, side
from benchmarks.table import table
from benchmarks.training import agreement
from jaxprefix.models.config import DecoderConfig

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


@dataclass(frozen=True)
class Size:
    values: dict[str, Any]
    dtype: str
    rows: int  # of training and scoring
    time: int
    answers: int  # rows of generation
    new: int


SIZES = {"8b": Size(LLAMA_8B, "bfloat16", 16, 512, 64, 64), "tiny": Size(TINY, "float32", 4, 32, 4, 8)}
STEPS = 6  # of a process; the first is not timed
LEARNT = 16  # tokens a row
BYTES = {"float32": 4, "bfloat16": 2}


def main(part: str, size: str = "8b", methods: str = "prefix,lora") -> list[dict[str, Any]]:
    if part not in PARTS or size not in SIZES:
        raise ValueError(f"part {part!r}, size {size!r}; expected {'|'.join(PARTS)} and {'|'.join(SIZES)}")
    with tempfile.TemporaryDirectory() as name:
        place, chosen = Path(name), SIZES[size]
        sizes = steps.write_model(place, chosen.values, steps.DTYPES[chosen.dtype])
        steps.write_adapters(place, sizes, methods.split(","))
        found = PARTS[part](place, sizes, chosen, methods.split(","))
    if size != "tiny":
        keep(f"gpu-{part}", found)
    print(table(found))
    return found


def train(place: Path, sizes: DecoderConfig, size: Size, methods: Sequence[str]) -> list[dict[str, Any]]:
    """Useful FLOPs over seconds and the measured rate of matrix products; beside the fastest setting of the peer."""
    learnt = min(LEARNT, size.time // 2)
    steps.write_rows(place, steps.random_rows(sizes, STEPS, size.rows, size.time, learnt))
    rate, device = matrix_rate()
    found = []
    for method in methods:
        ours = _fastest(["benchmarks.train_ours", str(place), method, size.dtype], [["none"], ["dots"], ["full"]])
        theirs = _fastest(
            ["benchmarks.train_peer", str(place), method, size.dtype], [["sdpa", "eager"], ["sdpa", "compiled"]]
        )
        tokens = size.rows * size.time
        useful = training_flops(sizes, tokens, size.rows * (learnt + 1))
        row = _row(f"training, {size.rows} × {size.time} tokens", method, device, "tokens/s", tokens, ours, theirs, 1.3)
        row["mfu"] = round(useful * row["figure"] / tokens / rate, 3)
        row["mfu_target"] = 0.6
        row["agreement"] = agreement(ours["losses"], theirs["losses"], 1e-4 if size.dtype == "float32" else 2e-2)
        found.append(row)
    return found


def _fastest(command: list[str], settings: list[list[str]]) -> dict[str, Any]:
    """The side in its fastest setting; what does not fit, or cannot be compiled, is passed over and told."""
    found = []
    for setting in settings:
        try:
            found.append(side(command + setting) | {"setting": " ".join(setting)})
        except RuntimeError as error:
            print(f"{command[0]} {' '.join(setting)}: {str(error).splitlines()[-1][:200]}", file=sys.stderr)
    if not found:
        raise RuntimeError(f"{command[0]} ran in no setting")
    return min(found, key=lambda each: middle(each["seconds"][1:])[0])


def training_flops(sizes: DecoderConfig, tokens: int, learnt: int) -> float:
    """Useful ones: forward, and gradients of activations. Remat is no use."""
    return 4 * needed_products(sizes, tokens, learnt)


def needed_products(sizes: DecoderConfig, tokens: int, read: int) -> int:
    """Parameters times tokens where the head reads some tokens alone: of the last layer only its keys and values are
    needed of the others.
    """
    width, layer = sizes.hidden_size, layer_parameters(sizes)
    keys = 2 * width * sizes.kv_heads * sizes.head_size
    of_layers = (sizes.layers - 1) * layer * tokens + keys * tokens + (layer - keys) * read
    return of_layers + sizes.vocabulary_size * width * read


def layer_parameters(sizes: DecoderConfig) -> int:
    """Of one layer's projections."""
    width, heads = sizes.hidden_size, (2 * sizes.heads + 2 * sizes.kv_heads) * sizes.head_size
    return width * (heads + 3 * sizes.intermediate_size)


def decode(place: Path, sizes: DecoderConfig, size: Size, _: Sequence[str]) -> list[dict[str, Any]]:
    """Tokens after the first; the bound is reading weights and cache once a step, at the measured rate of copying."""
    rows = steps.random_rows(sizes, 1, size.answers, size.time, 1)
    steps.write_rows(place, rows)
    rate, device = copy_rate()
    asked = [str(place), "decode", size.dtype, str(size.new)]
    ours, theirs = side(["benchmarks.answer_ours", *asked]), side(["benchmarks.answer_peer", *asked])
    tokens = size.answers * (size.new - 1)
    row = _row(f"decode, {size.answers} × {size.time} tokens", "none", device, "tokens/s", tokens, ours, theirs, 3.0)
    cache = 2 * sizes.layers * sizes.kv_heads * sizes.head_size * size.answers * (size.time + size.new / 2)
    weights = sizes.layers * layer_parameters(sizes) + sizes.vocabulary_size * sizes.hidden_size
    least = (weights + cache) * BYTES[size.dtype] / rate
    row["bandwidth_share"] = round(least / (size.answers / row["figure"]), 3)
    row["bandwidth_target"] = 0.7
    row["agreement"] = {"equal_tokens": _equal(ours["answers"], theirs["answers"])}
    assert row["agreement"]["equal_tokens"] >= 0.5, row  # ties of random weights in half precision part answers
    return [row]


def _equal(ours: list[list[int]], theirs: list[list[int]]) -> float:
    return round(float(np.equal(ours, theirs).mean()), 3)


def scoring(place: Path, sizes: DecoderConfig, size: Size, _: Sequence[str]) -> list[dict[str, Any]]:
    """Four choices of one token behind each prompt, as answers of Belebele are."""
    steps.write_rows(place, steps.random_rows(sizes, 1, size.rows, size.time, 1))
    rate, device = matrix_rate()
    asked = [str(place), "scoring", size.dtype, "4"]
    ours, theirs = side(["benchmarks.answer_ours", *asked]), side(["benchmarks.answer_peer", *asked])
    name = f"scoring, {size.rows} × {size.time} tokens, 4 choices"
    row = _row(name, "none", device, "questions/s", size.rows, ours, theirs, 3.0)
    useful = 2 * needed_products(sizes, size.rows * (size.time - 1), size.rows)
    row["mfu"], row["mfu_target"] = round(useful * row["figure"] / size.rows / rate, 3), 0.65
    difference = float(np.abs(np.subtract(ours["answers"], theirs["answers"])).max())
    assert difference < (1e-3 if size.dtype == "float32" else 0.3), difference
    row["agreement"] = {"largest_difference": difference}
    return [row]


def start(place: Path, sizes: DecoderConfig, size: Size, methods: Sequence[str]) -> list[dict[str, Any]]:
    """From command to first step, the second time, over the time that reading the files takes."""
    learnt = min(LEARNT, size.time // 2)
    steps.write_rows(place, steps.random_rows(sizes, 1, size.rows, size.time, learnt))
    _, device = matrix_rate()
    found = []
    for method in methods:
        command = ["benchmarks.train_ours", str(place), method, size.dtype, "dots", "together"]
        first = _timed(command)
        second, read = _timed(command), read_time(place / "model")
        found.append(
            {
                "work": "start, programs compiled before, beside reading the weights",
                "method": method,
                "device": device,
                "figure": round(second, 2),
                "unit": "s",
                "peer": round(read, 2),
                "ratio": round(second / read, 2),
                "target": 1.5,
                "met": second / read <= 1.5,
                "first_time_s": round(first, 2),
            }
        )
    return found


def _timed(command: list[str]) -> float:
    began = time.perf_counter()
    side(command)
    return time.perf_counter() - began


def read_time(folder: Path) -> float:
    began = time.perf_counter()
    for path in folder.glob("*.safetensors"):
        with path.open("rb", buffering=0) as file:
            while file.read(2**24):
                pass
    return time.perf_counter() - began


def _row(
    work: str,
    method: str,
    device: str,
    unit: str,
    amount: int,
    ours: dict,
    theirs: dict,
    target: float,
) -> dict[str, Any]:
    """The first of the measured times does not count."""
    figure, spread = middle([amount / second for second in ours["seconds"][1:]])
    other, others = middle([amount / second for second in theirs["seconds"][1:]])
    return {
        "work": work,
        "method": method,
        "device": device,
        "figure": round(figure, 1),
        "unit": unit,
        "peer": round(other, 1),
        "ratio": round(figure / other, 2),
        "target": target,
        "met": figure / other >= target,
        "spread": {"ours": spread, "peer": others},
        "memory_mb": [round(each["memory"] / 1e6) for each in (ours, theirs)],
        "compile_s": ours.get("compile"),
        "settings": [ours.get("setting"), theirs.get("setting")],
    }


def matrix_rate() -> tuple[float, str]:
    """FLOP/s of a large matrix product in half precision, measured in a process of its own; and the device's name."""
    found = side(["benchmarks.rates", "matrix"])
    return found["rate"], found["device"]


def copy_rate() -> tuple[float, str]:
    """Bytes a second that are read and written."""
    found = side(["benchmarks.rates", "copy"])
    return found["rate"], found["device"]


PARTS = {"train": train, "decode": decode, "scoring": scoring, "start": start}

if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
