"""Rows of several thousand tokens: the logits are those of transformers, and every command takes them."""

import sys
from pathlib import Path

import hugging_face as hf
import jax.numpy as jnp
import numpy as np
import pytest
import small
import torch

from jaxprefix import generate
from jaxprefix.evaluation.evaluate import Evaluation, evaluate
from jaxprefix.models import decoder
from jaxprefix.runs.config import RunConfig
from jaxprefix.train.loop import train

LENGTH = 3001


@pytest.mark.parametrize("kind", ["grouped heads", "mistral window"])
def test_logits_of_a_long_row(kind: str, tmp_path: Path):
    sizes = {"max_position_embeddings": 4096, "num_hidden_layers": 1}
    changes = {**hf.KINDS[kind].changes, **sizes} | ({"sliding_window": 700} if "window" in kind else {})
    pair = hf.make(hf.Kind(hf.KINDS[kind].family, changes), tmp_path)
    rows = hf.rows("right", lengths=(LENGTH,))
    batch = decoder.Batch(jnp.array(rows.tokens), jnp.array(rows.positions))
    states = decoder.hidden_states(pair.config, pair.frozen, batch)[0, [0, 1, 1500, LENGTH - 1]]
    with torch.no_grad():
        theirs = pair.torch(input_ids=torch.tensor(rows.tokens).long()).logits[0, [0, 1, 1500, LENGTH - 1]]
    ours = np.asarray(decoder.logits(pair.frozen, states[None]))[0]
    assert theirs.std() > 0.3 and np.abs(theirs.numpy() - ours).max() <= 1e-5


@pytest.mark.slow
def test_every_command_takes_long_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    model = small.write_model(tmp_path / "model", max_position_embeddings=8192)
    text = "The boat is red. " * 700
    rows = [{"prompt": f"{number}: {text}What colour is it?", "response": "red"} for number in range(4)]
    file = small.write_rows(tmp_path / "rows.jsonl", rows)
    config = RunConfig(model=str(model), train_file=file, steps=1, batch=2, max_length=8000, held_out=0, mesh="1x1")
    run = train(config, tmp_path / "run", quiet=True)
    assert "0 rows skipped" not in capsys.readouterr().out and small.metrics(run)[-1]["loss"] > 0
    report = evaluate(run, Evaluation(eval_file=file, batch=2, mesh="1x1"), quiet=True)
    assert report["tasks"]["rows"]["languages"]["en"]["n"] == 4
    monkeypatch.setattr(sys, "argv", ["generate", str(run), rows[0]["prompt"], "--max-new-tokens", "4"])
    generate.main()
    assert capsys.readouterr().out
