"""python -m benchmarks.beside_peft DATA [STEPS]: PEFT's training losses beside ours, on SmolLM2-135M (`make real`).

Weights, initial parameters, batches and optimizer are the same on both sides. LoRA, DoRA and (IA)³ train with AdamW. A
prefix trains with SGD, because PEFT stores rotated keys, and Adam's steps depend on the coordinates. The losses are
written to benchmarks/results/starts.json. DATA is a local mirror of the Hub with TyDiQA.
"""

import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from peft import PeftModel
from transformers import LlamaForCausalLM

from benchmarks import real, starts
from jaxprefix.models import adapter_init, loading
from jaxprefix.models.adapters import IA3, Adapter, LoRA, NoAdapter, PrefixTuning
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.hooks import Frozen, Params
from jaxprefix.peft.convert import to_peft
from jaxprefix.peft.files import write_adapter
from jaxprefix.runs.base_model import init_token_ids
from jaxprefix.tasks.tydiqa import TYDIQA
from jaxprefix.text.tokenizer import load_tokenizer
from jaxprefix.train import dataset
from jaxprefix.train.batches import Plan, TrainBatch
from jaxprefix.train.step import State, train_step

ADAMW: dict[str, Any] = {"eps": 1e-8, "weight_decay": 0.02}
# The adapter, our optimizer and PyTorch's. SGD at 0.5 is unstable: rounding errors grow from 2e-5 to 2e-2 in 20 steps.
METHODS: dict[str, tuple[Adapter, optax.GradientTransformation, Any]] = {
    "lora": (
        LoRA(targets="q,v"),
        optax.adamw(1e-3, b1=0.9, b2=0.95, **ADAMW),
        partial(torch.optim.AdamW, lr=1e-3, betas=(0.9, 0.95), **ADAMW),
    ),
    "dora": (
        LoRA(dora=True),
        optax.adamw(1e-3, b1=0.9, b2=0.95, **ADAMW),
        partial(torch.optim.AdamW, lr=1e-3, betas=(0.9, 0.95), **ADAMW),
    ),
    "ia3": (
        IA3(),
        optax.adamw(3e-3, b1=0.9, b2=0.95, **ADAMW),
        partial(torch.optim.AdamW, lr=3e-3, betas=(0.9, 0.95), **ADAMW),
    ),
    "prefix": (PrefixTuning(10, "all", "kv"), optax.sgd(0.1), partial(torch.optim.SGD, lr=0.1)),
}


def curves(data: Path, name: str, steps: int) -> tuple[list[float], list[float]]:
    """The losses of each step, ours and PEFT's."""
    directory = real.directory()
    adapter, ours, theirs = METHODS[name]
    config = DecoderConfig.read(directory)
    frozen = loading.load(directory, config)
    tokens = init_token_ids(load_tokenizer(directory), 0)
    params = jax.jit(lambda: adapter_init.init_params(adapter, jax.random.key(0), config, frozen, tokens))()
    batches = list(_batches(data, steps))
    model = _peft_model(adapter, params, config, frozen)
    # PEFT loads prompts as frozen; their parameters can be trained all the same.
    named = model.named_parameters()
    learnt = [leaf.requires_grad_() for key, leaf in named if any(part in key for part in ("lora_", "ia3_", "prompt_"))]
    expected = _their_losses(model, batches, theirs(learnt))
    step = jax.jit(train_step(config, adapter, ours, "dots", jax.random.key(0)))
    state, losses = State(params, ours.init(params), jnp.int32(0)), []
    for batch in batches:
        state, metrics = step(state, frozen, jax.tree.map(jnp.asarray, batch))
        losses.append(float(metrics["loss"]))
    return losses, expected


def _batches(data: Path, steps: int) -> Iterator[TrainBatch]:
    config = replace(starts.configuration(data, NoAdapter()), batch=4, steps=steps)
    rows = dataset.load_rows(config, TYDIQA, load_tokenizer(real.directory()), config.max_length)
    return Plan(config, rows.learn).batches(0, pad=2)


def _peft_model(adapter: Adapter, params: Params, config: DecoderConfig, frozen: Frozen) -> torch.nn.Module:
    """PEFT's model with these very parameters."""
    settings, tensors = to_peft(adapter, params, config, lambda name: np.asarray(frozen["layers"][name]))
    model = LlamaForCausalLM.from_pretrained(real.directory(), dtype=torch.float32, attn_implementation="eager")
    with tempfile.TemporaryDirectory() as folder:
        named = settings | {"base_model_name_or_path": str(real.directory())}
        write_adapter(Path(folder) / "peft", named, tensors, "hash", "card")
        return PeftModel.from_pretrained(model.eval(), str(Path(folder) / "peft"))


def _their_losses(
    model: torch.nn.Module, batches: Sequence[TrainBatch], optimizer: torch.optim.Optimizer
) -> list[float]:
    losses = []
    for batch in batches:
        tokens = torch.tensor(batch.tokens[0]).long()
        mask = (torch.arange(tokens.shape[1]) < torch.tensor(batch.lengths[0])[:, None]).long()
        logits = model(input_ids=torch.where(mask > 0, tokens, 0), attention_mask=mask).logits
        leaves = (batch.loss_positions, batch.targets, batch.loss_mask)
        positions, targets, weights = (torch.tensor(leaf[0]) for leaf in leaves)
        logprobs = logits[torch.arange(len(positions))[:, None], positions.long()].log_softmax(-1)
        loss = -(logprobs.gather(-1, targets.long()[..., None])[..., 0] * weights).sum() / weights.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def main() -> None:
    steps = int(sys.argv[2]) if sys.argv[2:] else 20
    found = {}
    for name in METHODS:
        ours, theirs = curves(Path(sys.argv[1]), name, steps)
        difference = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
        print(f"{name}: {theirs[0]:.3f} to {theirs[-1]:.3f}, largest difference {difference:.1e}", flush=True)
        found[name] = {"ours": ours, "peft": theirs}
    starts.keep("peft", found)


if __name__ == "__main__":
    main()
