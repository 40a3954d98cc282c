"""One measured side: jaxprefix answers the questions of a work, several times; prints JSON."""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.work import BATCH, ENDS, GENERATION, NEW_TOKENS, NO_ENDS, SCORING, TIMES, questions
from jaxprefix.distributed.mesh import make_mesh
from jaxprefix.inference.batching import Request, plan_buckets
from jaxprefix.inference.engine import generate, score
from jaxprefix.inference.model import Model
from jaxprefix.runs.base_model import load_weights
from jaxprefix.runs.saved import load_run


def main(work: str, run: Path, data: Path, count: int, passes: int) -> dict[str, Any]:
    mesh = make_mesh("1x1")
    saved = load_run(run, mesh)
    base = saved.base
    tokenizer = replace(base.tokenizer, eos=ENDS if work == GENERATION else NO_ENDS)
    frozen = load_weights(base, mesh, "float32", for_inference=True)
    model = Model(
        replace(base, tokenizer=tokenizer), saved.config.adapter, saved.params, frozen, mesh, 2048, chat=False
    )
    requests = [
        Request(tokenizer.prompt_ids(row.prompt)[-TIMES[work] :], tuple(map(tokenizer.encode, row.choices)))
        for row in questions(work, data, count)
    ]
    seconds, answers = [], {}
    for _ in range(passes):
        start = time.perf_counter()
        if work == SCORING:
            answers = {index: scores.logprobs for part in score(model, requests, BATCH) for index, scores in part}
        else:
            answers = {index: text for part in generate(model, requests, BATCH, NEW_TOKENS) for index, text in part}
        seconds.append(time.perf_counter() - start)
    compiled = (model.programs.score_choices if work == SCORING else model.programs.step)._cache_size()
    shapes = {(bucket.prompt_len, bucket.choices, bucket.choices_len) for bucket in plan_buckets(requests, BATCH)}
    ordered = [answers[index] for index in range(len(requests))]
    return {"seconds": seconds, "answers": ordered, "compilations": compiled, "buckets": len(shapes)}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))))
