"""The whole training path learns on the embedded model: rows, batches, masks, positions, gradients, steps and answers.

A fault anywhere in that path shows here. `make test` compares the first loss; learning itself takes a minute.
"""

from dataclasses import replace
from pathlib import Path

import jax
import naive
import numpy as np
import pytest

from jaxprefix import tasks
from jaxprefix.evaluation.evaluate import Evaluation, evaluate
from jaxprefix.models import adapter_init, loading
from jaxprefix.runs.base_model import init_token_ids, open_base
from jaxprefix.runs.config import RunConfig
from jaxprefix.runs.saved import load_run
from jaxprefix.train import dataset as training_rows
from jaxprefix.train.batches import buckets, steps_from
from jaxprefix.train.loop import train
from jaxprefix.train.metrics import read

STEPS = 90
CONFIG = RunConfig(method="prefix", steps=STEPS, mesh="1x1", log_every=1, eval_every=STEPS, save_every=STEPS)
ONE_STEP = replace(CONFIG, steps=1, batch=4, limit=120)
ENGLISH = Evaluation(languages="en", limit=60, mesh="1x1")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(CONFIG, tmp_path_factory.mktemp("learning"), quiet=True)


def fresh() -> dict:
    base = open_base(None)
    frozen = loading.load(base.directory, base.config)
    tokens = init_token_ids(base.tokenizer, CONFIG.seed)
    return adapter_init.init_params(CONFIG.adapter, jax.random.key(CONFIG.seed), base.config, frozen, tokens)


def test_the_first_loss_is_that_of_a_decoder_written_again(tmp_path: Path):
    """In float64, row by row without padding: no mask, position, target or weight of the batch is wrong."""
    base = open_base(None)
    frozen = loading.load(base.directory, base.config)
    learn = training_rows.load_rows(ONE_STEP, tasks.find("babel-qa"), base.tokenizer, CONFIG.max_length).learn
    _, chosen = next(steps_from(learn, buckets(learn), ONE_STEP.batch, CONFIG.seed, 0))
    slots = fresh()["hidden"]
    first = base.config.layers - len(slots)
    extras = {}
    for number, vectors in enumerate(slots, start=first):
        pair = [
            np.einsum("pd,khd->pkh", naive.wide(vectors), naive.wide(frozen["layers"][name][number]))
            for name in ("k_proj", "v_proj")
        ]
        extras[number] = naive.Extras(prefix=(pair[0], pair[1]))
    losses = []
    for row in (learn[place] for place in chosen):
        ids = row.prompt + row.response
        scores = naive.logits(base.config, frozen, ids[:-1], extras)[len(row.prompt) - 1 :]
        largest = scores.max(-1, keepdims=True)
        logs = scores - largest - np.log(np.exp(scores - largest).sum(-1, keepdims=True))
        losses += [-log[token] for log, token in zip(logs, row.response, strict=True)]
    run = train(ONE_STEP, tmp_path / "run", quiet=True)
    assert read(run)[1]["loss"] == pytest.approx(np.mean(losses), abs=2e-4)


@pytest.mark.slow
def test_every_virtual_token_of_every_layer_is_trained_and_none_diverges(run: Path):
    """The vectors moved by 7.1 to 13.2; their norm was 7 at first."""
    moved = np.linalg.norm(load_run(run).params["hidden"] - np.asarray(fresh()["hidden"]), axis=-1)
    assert moved.min() > 2 and moved.max() < 30, moved


@pytest.mark.slow
def test_the_held_out_loss_falls_but_not_to_nothing(run: Path):
    """From 5.17 to 0.21; a model that saw the answers would predict them."""
    first, last = (row["held_out_loss"] for row in read(run) if "held_out_loss" in row)
    assert 0.1 < last < 0.4 < 4 < first


@pytest.mark.slow
def test_english_is_answered(run: Path, tmp_path: Path):
    """The F1 was 0.86, that of the frozen base 0.10; 60 questions have a standard error of 0.04."""
    base = evaluate(train(RunConfig(method="none", mesh="1x1"), tmp_path, quiet=True), ENGLISH, quiet=True)
    found = evaluate(run, ENGLISH, quiet=True)
    before, after = (report["tasks"]["babel-qa"]["source"]["f1"] for report in (base, found))
    assert after > before + 0.5
