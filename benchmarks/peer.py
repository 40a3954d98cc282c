"""The other measured side: transformers and PEFT answer the same work, rows sorted by length and padded in batches.

Choices are scored as lm-evaluation-harness does it: prompt and choice together, four rows a question.
"""

import json
import sys
import time
from itertools import takewhile
from pathlib import Path
from typing import Any

import peft
import torch
from transformers import LlamaForCausalLM

from benchmarks.work import BATCH, ENDS, GENERATION, NEW_TOKENS, NO_ENDS, SCORING, TIMES, questions
from jaxprefix.text.tokenizer import load_tokenizer


def padded(rows: list[list[int]], left: bool) -> dict[str, torch.Tensor]:
    longest = max(map(len, rows))
    ids, mask = (torch.zeros(len(rows), longest, dtype=torch.long) for _ in range(2))
    for row, tokens in enumerate(rows):
        place = slice(longest - len(tokens), None) if left else slice(0, len(tokens))
        ids[row, place], mask[row, place] = torch.tensor(tokens), 1
    return {"input_ids": ids, "attention_mask": mask}


def generate(model: Any, prompts: list[list[int]], ends: tuple[int, ...]) -> list[list[int]]:
    order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
    found: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(order), BATCH):
        places = order[start : start + BATCH]
        batch = padded([prompts[place] for place in places], left=True)
        settings = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "eos_token_id": list(ends), "pad_token_id": 0}
        tokens = model.generate(**batch, **settings)[:, batch["input_ids"].shape[1] :]
        for place, row in zip(places, tokens.tolist(), strict=True):
            found[place] = list(takewhile(lambda token: token not in ends, row))
    return found


def score(model: Any, asked: list[tuple[list[int], list[int]]]) -> list[float]:
    order = sorted(range(len(asked)), key=lambda place: sum(map(len, asked[place])))
    found = [0.0] * len(asked)
    for start in range(0, len(order), BATCH):
        places = order[start : start + BATCH]
        batch = padded([[*prompt, *choice] for prompt, choice in map(asked.__getitem__, places)], left=False)
        # A soft prompt's own positions, which PEFT gives too, are dropped.
        logits = model(**batch).logits[:, -batch["input_ids"].shape[1] :]
        for row, place in enumerate(places):
            prompt, choice = asked[place]
            scores = logits[row, len(prompt) - 1 : len(prompt) + len(choice) - 1].log_softmax(-1)
            found[place] = scores.gather(-1, torch.tensor(choice)[:, None]).sum().item()
    return found


def main(work: str, base: str, adapter: str, data: Path, count: int, passes: int) -> dict[str, Any]:
    tokenizer = load_tokenizer(Path(base))
    model = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(model, adapter).eval()
    rows = questions(work, data, count)
    prompts = [tokenizer.prompt_ids(each.prompt)[-TIMES[work] :] for each in rows]
    pairs = [
        (prompt, tokenizer.encode(choice))
        for prompt, each in zip(prompts, rows, strict=True)
        for choice in each.choices
    ]
    seconds: list[float] = []
    found: list[Any] = []
    with torch.inference_mode():
        for _ in range(passes):
            start = time.perf_counter()
            if work == SCORING:
                sums = score(model, pairs)
                found = [sums[place : place + 4] for place in range(0, len(sums), 4)]
            else:
                found = generate(model, prompts, ENDS if work == GENERATION else NO_ENDS)
            seconds.append(time.perf_counter() - start)
    if work == SCORING:
        return {"seconds": seconds, "answers": found, "amount": len(found)}
    return {"seconds": seconds, "answers": list(map(tokenizer.decode, found)), "amount": sum(map(len, found))}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:4], Path(sys.argv[4]), int(sys.argv[5]), int(sys.argv[6]))))
