"""Before the first step a run scores the held-out rows with the frozen base and with the fresh adapter."""

from pathlib import Path
from typing import Any

import naive
import numpy as np
import pytest
import small

from jaxprefix.models import loading
from jaxprefix.models.adapters import PrefixTuning
from jaxprefix.runs.base_model import open_base
from jaxprefix.train import dataset as training_rows
from jaxprefix.train import held_out
from jaxprefix.train.loop import train


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("step-zero")
    small.write_model(folder / "model", scale=10)
    small.write_rows(folder / "rows.jsonl", small.rows(40))
    return folder


def first_row(folder: Path, output: Path, **changes: Any) -> dict[str, Any]:
    config = small.configuration(folder / "model", folder / "rows.jsonl", steps=1, **changes)
    return small.metrics(train(config, output, quiet=True))[0]


def test_the_base_is_scored_as_a_decoder_written_again_does(folder: Path, tmp_path: Path, capsys: Any):
    """In float64 and row by row; LoRA changes nothing before it has learnt."""
    row = first_row(folder, tmp_path / "run", method="lora")
    config = small.configuration(folder / "model", folder / "rows.jsonl")
    base = open_base(config.model)
    frozen = loading.load(base.directory, base.config)
    rows = training_rows.load_rows(config, training_rows.training_task(config), base.tokenizer, 96).held_out
    losses = []
    for each in rows:
        scores = naive.logits(base.config, frozen, each.prompt + each.response[:-1])[len(each.prompt) - 1 :]
        logs = scores - np.logaddexp.reduce(scores, axis=-1, keepdims=True)
        losses += [-log[token] for log, token in zip(logs, each.response, strict=True)]
    assert row["step"] == 0 and row["held_out_loss"] == row["base_held_out_loss"]
    assert row["base_held_out_loss"] == pytest.approx(np.mean(losses), abs=1e-4)
    printed = capsys.readouterr().out
    assert f"frozen base: held-out loss {row['base_held_out_loss']:.4f}\n" in printed and "warning" not in printed


def test_a_harmful_start_has_a_warning(folder: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch):
    """A random model cannot become much worse, so the bound is lowered."""
    monkeypatch.setattr(held_out, "HARMFUL", 0.5)
    prefix = PrefixTuning(start="random", std=100.0)
    row = first_row(folder, tmp_path / "run", method="prefix", prefix=prefix)
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("warning"))
    assert "--prefix.start" in line and "--prefix.std" in line
    soft = first_row(folder, tmp_path / "soft", method="soft-prompt")
    assert row["base_held_out_loss"] == pytest.approx(soft["base_held_out_loss"], abs=1e-6)
    assert row["held_out_loss"] != soft["held_out_loss"] != soft["base_held_out_loss"]
