"""python -m benchmarks.starts DATA [METHOD;METHOD...]: trains SmolLM2-135M (`make real`) with each method's defaults.

DATA is a local mirror of the Hub with TyDiQA. Each method trains for 100 steps of 8 rows with three seeds, in
runs/starts. Interrupted runs resume, and finished ones are not repeated. The losses, training and held-out, are written
into benchmarks/results/starts.json.

`python -m benchmarks.starts DATA fresh` only evaluates fresh adapters, with every way to start them.
"""

import json
import statistics
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import real
from jaxprefix.distributed import mesh as meshes
from jaxprefix.io.markdown import table
from jaxprefix.models.adapters import (
    IA3,
    Adapter,
    BottleneckAdapter,
    FullFineTuning,
    LlamaAdapter,
    LoRA,
    NoAdapter,
    PrefixTuning,
    SoftPrompt,
)
from jaxprefix.runs.base_model import init_token_ids, load_weights, open_base
from jaxprefix.runs.config import RunConfig
from jaxprefix.train import dataset as training_rows
from jaxprefix.train.held_out import HeldOutLoss
from jaxprefix.train.loop import train
from jaxprefix.train.metrics import read
from jaxprefix.train.programs import TrainPrograms

FILE = Path(__file__).parent / "results" / "starts.json"
SEEDS, STEPS, LENGTH = (0, 1, 2), 100, 128
METHODS: dict[str, Adapter] = {
    "prefix": PrefixTuning(),
    "lora": LoRA(),
    "dora": LoRA(dora=True),
    "llama-adapter": LlamaAdapter(),
    "bottleneck": BottleneckAdapter(),
    "ia3": IA3(),
    "soft-prompt": SoftPrompt(),
    "prefix, split": PrefixTuning(softmax="split"),
    "prefix, kv": PrefixTuning(source="kv"),
    "prefix, mlp": PrefixTuning(mlp=64),
    "full": FullFineTuning(),
}
TEXT = "text:Answer the question in a few words."
FRESH: dict[str, Adapter] = {
    "base": NoAdapter(),
    "prefix": PrefixTuning(),
    "prefix, split": PrefixTuning(softmax="split"),
    "prefix, kv": PrefixTuning(source="kv"),
    "prefix, kv, split": PrefixTuning(source="kv", softmax="split"),
    "prefix, mlp": PrefixTuning(mlp=64),
    "prefix, kv, mlp": PrefixTuning(source="kv", mlp=64),
    "prefix, split, mlp": PrefixTuning(softmax="split", mlp=64),
    "prefix, one virtual token": PrefixTuning(length=1),
    "prefix, text": PrefixTuning(start=TEXT),
    "prefix, random, std 0.02": PrefixTuning(start="random"),
    "prefix, random, std 0.1": PrefixTuning(start="random", std=0.1),
    "prefix, random, std 0.5": PrefixTuning(start="random", std=0.5),
    "llama-adapter": LlamaAdapter(),
    "bottleneck": BottleneckAdapter(),
    "lora": LoRA(),
    "soft-prompt": SoftPrompt(),
    "soft-prompt, random": SoftPrompt(start="random"),
}


def configuration(data: Path, adapter: Adapter, seed: int = 0) -> RunConfig:
    settings = RunConfig(
        model=str(real.smollm2()),
        task="tydiqa",
        data=data,
        batch=8,
        steps=STEPS,
        max_length=LENGTH,
        held_out=32,
        eval_every=STEPS // 2,
        save_every=STEPS // 2,
        keep=1,
        mesh="1x1",
        seed=seed,
    )
    return settings.with_adapter(adapter)


def fresh(data: Path) -> dict[str, float]:
    """The held-out loss of each adapter before the first step, on rows of up to 256 tokens."""
    config = replace(configuration(data, NoAdapter()), max_length=256)
    base, mesh = open_base(config.model), meshes.make_mesh("1x1")
    frozen = load_weights(base, mesh, "float32")
    rows = training_rows.load_rows(config, training_rows.training_task(config), base.tokenizer, config.max_length)
    losses = {}
    for name, adapter in FRESH.items():
        adapted = config.with_adapter(adapter)
        tokens = init_token_ids(base.tokenizer, adapted.seed)
        state = TrainPrograms(adapted, base.config, mesh, frozen, tokens, STEPS).init(frozen)
        losses[name] = HeldOutLoss(rows.held_out, adapted, base, mesh)(state.params, frozen)
        print(f"{name:28} {losses[name]:.3f}  {losses[name] / losses['base']:.3f} of the base's", flush=True)
    return losses


def curves(data: Path, methods: list[str]) -> dict[str, list[dict[str, Any]]]:
    """The losses of each method's runs, one entry per seed."""
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in methods}
    for seed in SEEDS:
        for name in methods:
            adapter = METHODS[name]
            directory = Path("runs/starts") / f"{name.replace(', ', '-')}-{seed}"
            train(configuration(data, adapter, seed), directory, quiet=True)
            rows = read(directory)
            held_out = {row["step"]: row["held_out_loss"] for row in rows if "held_out_loss" in row}
            losses = [row["loss"] for row in rows if "loss" in row]
            results[name].append({"seed": seed, "held_out": held_out, "loss": losses})
            keep("curves", kept("curves") | results)
    return results


def keep(name: str, figures: Mapping[str, Any]) -> None:
    """Writes the figures under `name` into the file, where they replace earlier ones."""
    before = json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}
    FILE.write_text(json.dumps(before | {name: figures}, indent=1) + "\n", encoding="utf-8")


def kept(name: str) -> dict[str, Any]:
    return json.loads(FILE.read_text(encoding="utf-8")).get(name, {}) if FILE.is_file() else {}


def curves_table(figures: dict[str, list[dict[str, Any]]]) -> str:
    """Held-out loss after the last step: mean and range over the seeds, and the ratio to LoRA's mean."""
    last = {name: [list(run["held_out"].values())[-1] for run in runs] for name, runs in figures.items() if runs}
    lora = statistics.mean(last["lora"])
    rows = []
    for name, losses in last.items():
        mean, spread = statistics.mean(losses), f"{min(losses):.3f}..{max(losses):.3f}"
        rows.append((name, f"{mean:.3f}", spread, f"{mean / lora:.3f}", len(losses)))
    return table(("method", "held-out loss", "range", "× LoRA", "seeds"), rows)


def main() -> None:
    data = Path(sys.argv[1])
    if sys.argv[2:] == ["fresh"]:
        keep("fresh", fresh(data))
        return
    print(curves_table(curves(data, sys.argv[2].split(";") if sys.argv[2:] else list(METHODS))))


if __name__ == "__main__":
    main()
