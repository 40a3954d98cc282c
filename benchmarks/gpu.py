"""python -m benchmarks.gpu PARTS [SIZE] [METHODS]: jaxprefix beside transformers and PEFT, on one accelerator.

PARTS are some of train, decode, scoring and start, with commas between. SIZE is 8b (the shapes of Llama 3.1 8B, random
weights, bfloat16) or tiny, to try the same on a CPU. Each part takes minutes and needs jax, flax, optax, orbax, torch,
transformers and PEFT.
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
    """A model, and the batches that it is measured on."""

    values: dict[str, Any]
    dtype: str
    rows: int  # of a batch, in training and scoring
    time: int  # tokens per row
    answers: int  # rows of a batch, in generation
    new: int  # tokens per answer


SIZES = {"8b": Size(LLAMA_8B, "bfloat16", 16, 512, 64, 64), "tiny": Size(TINY, "float32", 4, 32, 4, 8)}
STEPS = 6  # per process; the first is not timed
LEARNT = 16  # tokens per row
BYTES = {"float32": 4, "bfloat16": 2}


def main(parts: str, size: str = "8b", methods: str = "prefix,lora") -> list[dict[str, Any]]:
    if not set(parts.split(",")) <= set(PARTS) or size not in SIZES:
        raise ValueError(f"parts {parts!r}, size {size!r}; expected {','.join(PARTS)} and {'|'.join(SIZES)}")
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder, chosen = Path(name), SIZES[size]
        sizes = steps.write_model(folder, chosen.values, steps.DTYPES[chosen.dtype])
        steps.write_adapters(folder, sizes, methods.split(","))
        for part in parts.split(","):
            rows = PARTS[part](folder, sizes, chosen, methods.split(","))
            print(table(rows), flush=True)
            if size != "tiny":
                keep(f"gpu-{part}", rows)
            results += rows
    return results


def train(folder: Path, sizes: DecoderConfig, size: Size, methods: Sequence[str]) -> list[dict[str, Any]]:
    """Tokens/s and MFU (useful FLOP/s over the measured rate of matrix products), beside the peer's fastest setting."""
    learnt = min(LEARNT, size.time // 2)
    steps.write_rows(folder, steps.random_rows(sizes, STEPS, size.rows, size.time, learnt))
    rate, device = matrix_rate()
    results = []
    for method in methods:
        ours = _fastest(["benchmarks.train_ours", str(folder), method, size.dtype], [["dots"], ["full"]])
        theirs = _fastest(
            ["benchmarks.train_peer", str(folder), method, size.dtype], [["sdpa", "eager"], ["sdpa", "compiled"]]
        )
        tokens = size.rows * size.time
        useful = training_flops(sizes, tokens, size.rows * (learnt + 1))
        row = _row(f"training, {size.rows} × {size.time} tokens", method, device, "tokens/s", tokens, ours, theirs, 1.3)
        row["mfu"] = round(useful * row["figure"] / tokens / rate, 3)
        row["mfu_target"] = 0.6
        row["agreement"] = agreement(ours["losses"], theirs["losses"], 1e-4 if size.dtype == "float32" else 2e-2)
        results.append(row)
    return results


def _fastest(command: list[str], settings: list[list[str]]) -> dict[str, Any]:
    """The result of the side's fastest setting. A setting that fails, as for lack of memory, is skipped with a line."""
    results = []
    for setting in settings:
        try:
            result = side(command + setting) | {"setting": " ".join(setting)}
            print(f"{' '.join(command + setting)}: {result}", file=sys.stderr)
            results.append(result)
        except RuntimeError as error:
            print(f"{command[0]} {' '.join(setting)}: {str(error).splitlines()[-1][:200]}", file=sys.stderr)
    if not results:
        raise RuntimeError(f"{command[0]} failed in all settings")
    return min(results, key=lambda result: middle(result["seconds"][1:])[0])


def training_flops(sizes: DecoderConfig, tokens: int, learnt: int) -> float:
    """The useful FLOPs of a step: forward and gradients of activations, without recomputation."""
    return 4 * needed_products(sizes, tokens, learnt)


def needed_products(sizes: DecoderConfig, tokens: int, read: int) -> int:
    """Parameters times tokens, if the head reads only `read` of the tokens.

    The last layer then computes only keys and values for the other tokens.
    """
    width, layer = sizes.hidden_size, layer_parameters(sizes)
    keys_and_values = 2 * width * sizes.kv_heads * sizes.head_size
    last_layer = keys_and_values * tokens + (layer - keys_and_values) * read
    return (sizes.layers - 1) * layer * tokens + last_layer + sizes.vocabulary_size * width * read


def layer_parameters(sizes: DecoderConfig) -> int:
    """The number of parameters in the projections of one layer."""
    width, heads = sizes.hidden_size, (2 * sizes.heads + 2 * sizes.kv_heads) * sizes.head_size
    return width * (heads + 3 * sizes.intermediate_size)


def decode(folder: Path, sizes: DecoderConfig, size: Size, _: Sequence[str]) -> list[dict[str, Any]]:
    """Tokens/s after the first token. The bound is one read of weights and cache per step at the measured copy rate."""
    rows = steps.random_rows(sizes, 1, size.answers, size.time, 1)
    steps.write_rows(folder, rows)
    rate, device = copy_rate()
    arguments = [str(folder), "decode", size.dtype, str(size.new)]
    ours, theirs = side(["benchmarks.answer_ours", *arguments]), side(["benchmarks.answer_peer", *arguments])
    tokens = size.answers * (size.new - 1)
    row = _row(f"decode, {size.answers} × {size.time} tokens", "none", device, "tokens/s", tokens, ours, theirs, 3.0)
    cache = 2 * sizes.layers * sizes.kv_heads * sizes.head_size * size.answers * (size.time + size.new / 2)
    weights = sizes.layers * layer_parameters(sizes) + sizes.vocabulary_size * sizes.hidden_size
    bound = (weights + cache) * BYTES[size.dtype] / rate
    row["bandwidth_share"] = round(bound / (size.answers / row["figure"]), 3)
    row["bandwidth_target"] = 0.7
    # In half precision random weights have near ties, where answers diverge for good: the first tokens must agree.
    equal = np.equal(ours["answers"], theirs["answers"])
    row["agreement"] = {"equal_tokens": float(equal.mean()), "equal_first_tokens": float(equal[:, :4].mean())}
    assert row["agreement"]["equal_first_tokens"] >= 0.5, row
    return [row]


def scoring(folder: Path, sizes: DecoderConfig, size: Size, _: Sequence[str]) -> list[dict[str, Any]]:
    """Questions/s with four choices of one token per prompt, as in Belebele."""
    steps.write_rows(folder, steps.random_rows(sizes, 1, size.rows, size.time, 1))
    rate, device = matrix_rate()
    arguments = [str(folder), "scoring", size.dtype, "4"]
    ours, theirs = side(["benchmarks.answer_ours", *arguments]), side(["benchmarks.answer_peer", *arguments])
    name = f"scoring, {size.rows} × {size.time} tokens, 4 choices"
    row = _row(name, "none", device, "questions/s", size.rows, ours, theirs, 3.0)
    useful = 2 * needed_products(sizes, size.rows * (size.time - 1), size.rows)
    row["mfu"], row["mfu_target"] = round(useful * row["figure"] / size.rows / rate, 3), 0.65
    difference = float(np.abs(np.subtract(ours["answers"], theirs["answers"])).max())
    assert difference < (1e-3 if size.dtype == "float32" else 0.3), difference
    row["agreement"] = {"largest_difference": difference}
    return [row]


def start(folder: Path, sizes: DecoderConfig, size: Size, methods: Sequence[str]) -> list[dict[str, Any]]:
    """Seconds from command to first step with cached programs, over the seconds that reading the weights takes."""
    learnt = min(LEARNT, size.time // 2)
    steps.write_rows(folder, steps.random_rows(sizes, 1, size.rows, size.time, learnt))
    _, device = matrix_rate()
    results = []
    for method in methods:
        command = ["benchmarks.train_ours", str(folder), method, size.dtype, "dots", "together"]
        first = _timed(command)
        second, read = _timed(command), read_time(folder / "model")
        results.append(
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
    return results


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
    """A row of results. The first of the measured times does not count."""
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
        "memory_mb": [round(result["memory"] / 1e6) for result in (ours, theirs)],
        "compile_s": ours.get("compile"),
        "settings": [ours.get("setting"), theirs.get("setting")],
    }


def matrix_rate() -> tuple[float, str]:
    """(FLOP/s of a large matrix product in half precision, name of the device), measured in a separate process."""
    result = side(["benchmarks.rates", "matrix"])
    return result["rate"], result["device"]


def copy_rate() -> tuple[float, str]:
    """(bytes per second that a copy reads and writes, name of the device), measured in a separate process."""
    result = side(["benchmarks.rates", "copy"])
    return result["rate"], result["device"]


PARTS = {"train": train, "decode": decode, "scoring": scoring, "start": start}

if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
