"""The other measured side: transformers answers the rows of a folder; prints JSON.

python -m benchmarks.answer_peer FOLDER decode DTYPE NEW_TOKENS | FOLDER scoring DTYPE CHOICES
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaForCausalLM

from benchmarks.train_peer import peak_memory

PASSES = 4


def main(folder: Path, work: str, dtype: str, number: int) -> dict[str, Any]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch_dtype = getattr(torch, dtype)
    model = LlamaForCausalLM.from_pretrained(folder / "model", dtype=torch_dtype, attn_implementation="sdpa")
    model = model.to(device).eval()
    rows = json.loads((folder / "rows.json").read_text())[0]
    prompts = torch.tensor([ids[:prompt] for ids, prompt in rows], device=device)
    with torch.inference_mode():
        seconds, answers = (decoding if work == "decode" else choosing)(model, prompts, number)
    return {"seconds": seconds, "answers": answers.tolist(), "memory": peak_memory()}


def decoding(model: LlamaForCausalLM, prompts: torch.Tensor, new: int) -> tuple[list[float], torch.Tensor]:
    """(seconds of all tokens after the first, for each pass; the tokens)"""

    def generate(length: int) -> torch.Tensor:
        mask = torch.ones_like(prompts)
        settings = {"max_new_tokens": length, "min_new_tokens": length, "do_sample": False, "pad_token_id": 0}
        return model.generate(prompts, attention_mask=mask, eos_token_id=None, **settings)[:, prompts.shape[1] :]

    seconds, tokens = [], prompts
    for _ in range(PASSES):
        first, _ = _timed(lambda: generate(1))
        total, tokens = _timed(lambda: generate(new))
        seconds.append(total - first)
    return seconds, tokens


def choosing(model: LlamaForCausalLM, prompts: torch.Tensor, count: int) -> tuple[list[float], torch.Tensor]:
    """As in lm-evaluation-harness: one row per prompt and choice; choices of one token share a row."""

    def choose() -> torch.Tensor:
        return model(prompts).logits[:, -1].float().log_softmax(-1)[:, :count]

    passes = [_timed(choose) for _ in range(PASSES)]
    return [seconds for seconds, _ in passes], passes[-1][1]


def _timed(call: Callable[[], torch.Tensor]) -> tuple[float, torch.Tensor]:
    began = time.perf_counter()
    result = call()
    if result.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - began, result.cpu()


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), *sys.argv[2:4], int(sys.argv[4]))))
