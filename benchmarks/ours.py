"""One measured side: jaxprefix answers the work, several times; JSON on standard output."""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.work import BATCH, ENDS, GENERATION, NEW_TOKENS, NO_ENDS, SCORING, TIMES, questions
from jaxprefix.distributed import mesh
from jaxprefix.inference.batching import Request, plan_buckets
from jaxprefix.inference.engine import generate, score
from jaxprefix.inference.model import Model
from jaxprefix.runs.base_model import load_weights
from jaxprefix.runs.saved import load_run


def main(work: str, run: Path, data: Path, count: int, passes: int) -> dict[str, Any]:
    saved, made = load_run(run, mesh.make_mesh("1x1")), mesh.make_mesh("1x1")
    base = saved.base
    tokenizer = replace(base.tokenizer, eos=ENDS if work == GENERATION else NO_ENDS)
    frozen = load_weights(base, made, "float32")
    model = Model(
        replace(base, tokenizer=tokenizer), saved.config.adapter, saved.params, frozen, made, 2048, chat=False
    )
    asked = [
        Request(tokenizer.prompt_ids(each.prompt)[-TIMES[work] :], tuple(map(tokenizer.encode, each.choices)))
        for each in questions(work, data, count)
    ]
    seconds, found = [], {}
    for _ in range(passes):
        start = time.perf_counter()
        if work == SCORING:
            found = {place: each.logprobs for part in score(model, asked, BATCH) for place, each in part}
        else:
            found = {place: text for part in generate(model, asked, BATCH, NEW_TOKENS) for place, text in part}
        seconds.append(time.perf_counter() - start)
    compiled = (model.score_choices if work == SCORING else model.step)._cache_size()
    shapes = {(part.prompt_len, part.choices, part.choice_len) for part in plan_buckets(asked, BATCH)}
    answers = [found[place] for place in range(len(asked))]
    return {"seconds": seconds, "answers": answers, "compilations": compiled, "buckets": len(shapes)}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))))
