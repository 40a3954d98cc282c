"""Runs of one process that share what they have loaded and compiled equal runs of their own, bit for bit."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import small

from jaxprefix.evaluation.evaluate import evaluate
from jaxprefix.evaluation.settings import Evaluation
from jaxprefix.models.adapters import LoRA
from jaxprefix.runs.config import RunConfig
from jaxprefix.runs.loaded import Loaded
from jaxprefix.runs.saved import load_run
from jaxprefix.train.loop import train
from jaxprefix.train.programs import CompiledByShape


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    folder = tmp_path_factory.mktemp("loaded")
    model, rows = (
        small.write_model(folder / "model"),
        small.write_rows(folder / "rows.jsonl", small.rows(40, longest=1)),
    )
    return small.configuration(model, rows, method="lora", lora=LoRA(dropout=0.1))


def test_runs_share_a_compiled_step_and_stay_the_same(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_pictures: None
):
    """The second of two runs with other seeds and learning rates compiles no step, and is the run alone."""
    lowered, lower = [], CompiledByShape.lower

    def count(self: CompiledByShape, *arguments: Any) -> Any:
        lowered.append(len(arguments))
        return lower(self, *arguments)

    monkeypatch.setattr(CompiledByShape, "lower", count)
    settings = Evaluation(eval_file=config.train_file, limit=4, batch=4, mesh="1x1")
    other = replace(config, seed=7, lr=3e-3)
    loaded = Loaded()
    for name, each in (("first", config), ("second", other)):
        lowered.clear()
        train(each, tmp_path / name, quiet=True, loaded=loaded)
    steps = lowered.count(3)
    second = evaluate(tmp_path / "second", settings, quiet=True, loaded=loaded)
    train(other, tmp_path / "alone", quiet=True)
    alone = evaluate(tmp_path / "alone", settings, quiet=True)
    assert steps == 0 < lowered.count(3)  # a run alone compiles its own
    assert second == alone and small.metrics(tmp_path / "second") == small.metrics(tmp_path / "alone")
    found, expected = (load_run(tmp_path / name).params for name in ("second", "alone"))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    first = load_run(tmp_path / "first").params
    assert not jax.tree.all(jax.tree.map(np.array_equal, first, expected))


def test_another_base_drops_the_weights_and_programs_of_the_last(config: RunConfig, tmp_path: Path):
    loaded = Loaded()
    first = loaded.base(config.model)
    program = loaded.program("key", dict)
    assert loaded.base(config.model) is first and loaded.base(config.model, first.path) is first
    assert loaded.program("key", dict) is program
    loaded.base(str(small.write_model(tmp_path / "other")))
    assert loaded.program("key", dict) is not program
