"""The other measured side: transformers and PEFT train on the rows of a folder; prints JSON.

python -m benchmarks.train_peer FOLDER METHOD DTYPE ATTENTION EAGER|COMPILED
"""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import peft
import torch
from transformers import LlamaForCausalLM

RATE, BETAS = 1e-3, (0.9, 0.95)


def main(folder: Path, method: str, dtype: str, attention: str, mode: str) -> dict[str, Any]:
    began = time.perf_counter()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = LlamaForCausalLM.from_pretrained(
        folder / "model", dtype=getattr(torch, dtype), attn_implementation=attention
    )
    model = model.to(device)
    if method != "full":
        model = adapted(model, folder / method).to(device)
    model.train()
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learnt, lr=RATE, betas=BETAS, weight_decay=0.0)
    steps = json.loads((folder / "rows.json").read_text())
    forward = torch.compile(model) if mode == "compiled" else model
    loaded = time.perf_counter()
    seconds, losses = [], []
    for number, step in enumerate(steps):
        start = time.perf_counter()
        for group in optimizer.param_groups:  # linear decay to 0, as on the other side
            group["lr"] = RATE * min(1, (len(steps) - number) / max(len(steps) - 1, 1))
        # The last token is only a target; the model's loss shifts the labels.
        ids = torch.tensor([tokens for tokens, _ in step], device=device)
        labels = ids.clone()
        for row, (_, prompt) in enumerate(step):
            labels[row, :prompt] = -100
        loss = forward(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        seconds.append(time.perf_counter() - start)
    return {
        "seconds": seconds,
        "losses": losses,
        "load": loaded - began,
        "compile": 0.0,
        "first_step": loaded - began + seconds[0],
        "memory": peak_memory(),
    }


def adapted(model: LlamaForCausalLM, adapter: Path) -> peft.PeftModel:
    """The model with a trainable adapter. PEFT refuses `is_trainable` for prompts and prefixes."""
    settings = peft.PeftConfig.from_pretrained(adapter)
    if not settings.is_prompt_learning:
        return peft.PeftModel.from_pretrained(model, adapter, is_trainable=True)
    prompted = peft.PeftModel.from_pretrained(model, adapter)
    prompted.peft_config["default"].inference_mode = False
    prompted.prompt_encoder.requires_grad_(True)
    return prompted


def peak_memory() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), *sys.argv[2:6])))
