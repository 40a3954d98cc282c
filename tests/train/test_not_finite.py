"""A step whose loss or gradient is not finite changes nothing: the run stops before it or skips it."""

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import small
from safetensors.numpy import load_file, save_file

from jaxprefix import load_model
from jaxprefix.distributed import mesh
from jaxprefix.errors import InputError
from jaxprefix.models.adapters import LoRA
from jaxprefix.runs.base_model import init_token_ids, load_weights, max_text_tokens, open_base
from jaxprefix.runs.checkpoint import Checkpoints
from jaxprefix.runs.config import RunConfig
from jaxprefix.runs.saved import load_run
from jaxprefix.train import dataset as training_rows
from jaxprefix.train.batches import Plan, TrainBatch
from jaxprefix.train.loop import train
from jaxprefix.train.programs import TrainPrograms

POISON = "Ω"  # in no other row; its embedding in the base is NaN


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """Twelve steps of four rows; two of the 48 rows contain the poison."""
    folder = tmp_path_factory.mktemp("data")
    model = small.write_model(folder / "model", scale=5)
    token = open_base(str(model)).tokenizer.encode(POISON)[-1]
    tensors = load_file(model / "model.safetensors")
    tensors["model.embed_tokens.weight"][token] = np.nan
    save_file(tensors, model / "model.safetensors")
    rows = small.rows(48, longest=1)
    for number in (8, 5):
        rows[number] = rows[number] | {"prompt": POISON + rows[number]["prompt"]}
    file = small.write_rows(folder / "rows.jsonl", rows)
    return small.configuration(model, file, method="lora", steps=12, held_out=0, save_every=3, log_every=4)


@pytest.fixture(scope="module")
def batches(config: RunConfig) -> list[TrainBatch]:
    return list(plan(config).batches(0, open_base(config.model).tokenizer.pad))


def plan(config: RunConfig) -> Plan:
    base = open_base(config.model)
    longest = max_text_tokens(base.config, config.adapter, config.max_length)
    return Plan(
        config, training_rows.load_rows(config, training_rows.training_task(config), base.tokenizer, longest).learn
    )


def poisoned(config: RunConfig, batches: list[TrainBatch]) -> list[int]:
    """The steps with the poison, found by their tokens."""
    token = open_base(config.model).tokenizer.encode(POISON)[-1]
    found = [step for step, batch in enumerate(batches, start=1) if (np.asarray(batch.tokens) == token).any()]
    assert len(found) in (1, 2) and 1 < found[0] < 12
    return found


def without(config: RunConfig, batches: list[TrainBatch], left_out: list[int], last: int) -> Any:
    """The adapter after the steps up to `last` except these: the run's own step with the other batches."""
    base, made = open_base(config.model), mesh.make_mesh("1x1")
    frozen, tokens = load_weights(base, made, "float32"), init_token_ids(base.tokenizer, config.seed)
    programs = TrainPrograms(config, base.config, made, frozen, tokens, 12)
    state = programs.init(frozen)
    for step, batch in enumerate(batches[:last], start=1):
        if step not in left_out:
            state, _ = programs.step(state, frozen, programs.place(batch))
    return jax.device_get(state.params)


def assert_equal(one: Any, other: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("log_every", [*(pytest.param(each, marks=pytest.mark.slow) for each in (1, 5)), 100])
def test_it_stops_with_the_step_before(
    config: RunConfig, batches: list[TrainBatch], tmp_path: Path, log_every: int, capsys: Any
):
    """However late the metrics are read. The batch is in a file, and the same command meets it again."""
    bad = poisoned(config, batches)[0]
    config, run = replace(config, log_every=log_every), tmp_path / "run"
    for _ in range(2):
        with pytest.raises(
            InputError, match=rf"the loss is nan .* at step {bad}, .*; step {bad - 1} is saved"
        ) as error:
            train(config, run, quiet=True)
        assert f"{run}/nan-step-{bad}.npz" in str(error.value) and "--on-nan skip" in str(error.value)
        assert Checkpoints(run).latest == bad - 1
        assert_equal(load_run(run).params, without(config, batches, [], bad - 1))
        with np.load(run / f"nan-step-{bad}.npz") as kept:
            for each in fields(TrainBatch):
                np.testing.assert_array_equal(kept[each.name], getattr(batches[bad - 1], each.name))
    row = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1], parse_constant=pytest.fail)
    assert row["step"] == bad and row["loss"] is None and row["gradient_norm"] is None

    train(replace(config, on_nan="skip"), run, quiet=True)
    assert f"resumed at step {bad - 1} of 12" in capsys.readouterr().out
    assert_equal(load_run(run).params, without(config, batches, poisoned(config, batches), 12))


def test_skip_continues_without_the_step(config: RunConfig, batches: list[TrainBatch], tmp_path: Path, capsys: Any):
    """Also after a stop that follows it: the count is kept, and the learning rate is that of the counted steps."""
    bad, config = poisoned(config, batches), replace(config, on_nan="skip")
    train(config, tmp_path / "whole", quiet=True)
    said = f"skipped {len(bad)} of 12 steps: their loss or gradient was not finite\n"
    assert capsys.readouterr().out.endswith(said + f"run: {tmp_path}/whole\n")
    assert_equal(load_run(tmp_path / "whole").params, without(config, batches, bad, 12))

    small.train_until(11, config, tmp_path / "run")
    train(config, tmp_path / "run", quiet=True)
    assert said in capsys.readouterr().out
    assert small.metrics(tmp_path / "run") == small.metrics(tmp_path / "whole")
    assert_equal(load_run(tmp_path / "run").params, load_run(tmp_path / "whole").params)

    rows = small.metrics(tmp_path / "whole")
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert [row["step"] for row in rows if row["loss"] is None] == bad
    clean = train(replace(config, limit=16), tmp_path / "clean", quiet=True)
    rates = [row["learning_rate"] for row in small.metrics(clean)]
    counted = [row["learning_rate"] for row in rows if row["step"] not in bad]
    assert counted == rates[: len(counted)]


def test_a_notebook_keeps_the_parameters_before_the_step(config: RunConfig):
    model = load_model(config.model or "", mesh="1x1")
    model.set_adapter(LoRA())
    model.train([("a", "b")] * 4, steps=2, batch=4)
    before = jax.device_get(model.params)
    with pytest.raises(InputError, match=r"the loss is nan .* at step 1, .*; choose a smaller learning rate"):
        model.train([(POISON, "b")] * 4, steps=3, batch=4)
    assert_equal(jax.device_get(model.params), before)
