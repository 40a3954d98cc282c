"""The other measured side: transformers and PEFT answer the same questions, sorted by length and in padded batches.

Choices are scored as in lm-evaluation-harness: prompt and choice together, four rows per question.
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
    """A batch with rows padded on the left or on the right."""
    longest = max(map(len, rows))
    ids, mask = (torch.zeros(len(rows), longest, dtype=torch.long) for _ in range(2))
    for row, tokens in enumerate(rows):
        columns = slice(longest - len(tokens), None) if left else slice(0, len(tokens))
        ids[row, columns], mask[row, columns] = torch.tensor(tokens), 1
    return {"input_ids": ids, "attention_mask": mask}


def generate(model: peft.PeftModel, prompts: list[list[int]], ends: tuple[int, ...]) -> list[list[int]]:
    """The tokens of each answer, without its end token."""
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    answers: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(order), BATCH):
        indices = order[start : start + BATCH]
        batch = padded([prompts[index] for index in indices], left=True)
        settings = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "eos_token_id": list(ends), "pad_token_id": 0}
        tokens = model.generate(**batch, **settings)[:, batch["input_ids"].shape[1] :]
        for index, row in zip(indices, tokens.tolist(), strict=True):
            answers[index] = list(takewhile(lambda token: token not in ends, row))
    return answers


def score(model: peft.PeftModel, pairs: list[tuple[list[int], list[int]]]) -> list[float]:
    """The log-likelihood of the choice behind the prompt, for each (prompt, choice)."""
    order = sorted(range(len(pairs)), key=lambda index: sum(map(len, pairs[index])))
    totals = [0.0] * len(pairs)
    for start in range(0, len(order), BATCH):
        indices = order[start : start + BATCH]
        batch = padded([[*prompt, *choice] for prompt, choice in map(pairs.__getitem__, indices)], left=False)
        # PEFT's logits include the positions of a soft prompt, which are dropped.
        logits = model(**batch).logits[:, -batch["input_ids"].shape[1] :]
        for row, index in enumerate(indices):
            prompt, choice = pairs[index]
            scores = logits[row, len(prompt) - 1 : len(prompt) + len(choice) - 1].log_softmax(-1)
            totals[index] = scores.gather(-1, torch.tensor(choice)[:, None]).sum().item()
    return totals


def main(work: str, base: str, adapter: str, data: Path, count: int, passes: int) -> dict[str, Any]:
    tokenizer = load_tokenizer(Path(base))
    model = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(model, adapter).eval()
    rows = questions(work, data, count)
    prompts = [tokenizer.prompt_ids(row.prompt)[-TIMES[work] :] for row in rows]
    pairs = [
        (prompt, tokenizer.encode(choice)) for prompt, row in zip(prompts, rows, strict=True) for choice in row.choices
    ]
    seconds: list[float] = []
    answers: list[Any] = []
    with torch.inference_mode():
        for _ in range(passes):
            start = time.perf_counter()
            if work == SCORING:
                totals = score(model, pairs)
                answers = [totals[first : first + 4] for first in range(0, len(totals), 4)]
            else:
                answers = generate(model, prompts, ENDS if work == GENERATION else NO_ENDS)
            seconds.append(time.perf_counter() - start)
    if work == SCORING:
        return {"seconds": seconds, "answers": answers, "amount": len(answers)}
    return {"seconds": seconds, "answers": list(map(tokenizer.decode, answers)), "amount": sum(map(len, answers))}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:4], Path(sys.argv[4]), int(sys.argv[5]), int(sys.argv[6]))))
