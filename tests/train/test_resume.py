"""A stopped run resumes as if it had not been stopped, a finished run stays as it is, and another run is refused."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import small

import jaxprefix
from jaxprefix.errors import InputError
from jaxprefix.models.adapters import PrefixTuning
from jaxprefix.runs.checkpoint import Checkpoints
from jaxprefix.runs.config import RunConfig
from jaxprefix.runs.directory import read_run
from jaxprefix.train.loop import train

STEPS = 12  # 40 rows, a tenth held out, in steps of 4: one pass and a third


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """LoRA with dropout, whose random keys must continue as well, and a prefix in the same file."""
    folder = tmp_path_factory.mktemp("data")
    model = small.write_model(folder / "model", scale=5)
    rows = small.write_rows(folder / "rows.jsonl", small.rows(40, longest=2))
    config = small.configuration(
        model, rows, method="prefix+lora", steps=STEPS, save_every=4, eval_every=6, log_every=3
    )
    return replace(config, lora=replace(config.lora, dropout=0.2), prefix=PrefixTuning(length=3, std=0.5))


@pytest.fixture(scope="module")
def whole(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing interrupted."""
    return train(config, tmp_path_factory.mktemp("runs") / "whole", quiet=True)


def adapter(directory: Path) -> dict[str, np.ndarray]:
    """The last checkpoint's leaves by their paths."""
    checkpoints = Checkpoints(directory)
    found = checkpoints.manager.restore(checkpoints.latest, args=ocp.args.Composite(adapter=ocp.args.StandardRestore()))
    checkpoints.close()
    return {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(found.adapter)
    }


def assert_same_run(one: Path, other: Path) -> None:
    """Bit for bit: every metric of every step, and the adapter."""
    assert small.metrics(one) == small.metrics(other)
    left, right = adapter(one), adapter(other)
    assert left.keys() == right.keys() and len(left) == 7
    for name, leaf in left.items():
        np.testing.assert_array_equal(leaf, right[name], err_msg=name)


def files(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_metrics_have_every_step_once(whole: Path):
    rows = small.metrics(whole)
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, STEPS + 1))
    assert [row["step"] for row in rows if "held_out_loss" in row] == [0, 6, 12]
    assert set(rows[0]) == {"step", "held_out_loss", "base_held_out_loss"}
    assert set(rows[1]) == {"step", "loss", "gradient_norm", "tokens", "learning_rate"}
    assert all(np.isfinite(value) for row in rows for value in row.values())


@pytest.mark.parametrize("step", [pytest.param(2, marks=pytest.mark.slow), 7])
def test_a_stopped_run_ends_as_a_whole_one(config: RunConfig, whole: Path, tmp_path: Path, step: int, capsys: Any):
    """Stopped before the first checkpoint, and between two: the metrics after the checkpoint are written again."""
    output = tmp_path / "run"
    small.train_until(step, config, output)
    assert len(small.metrics(output)) < len(small.metrics(whole)) and not read_run(output)["finished"]
    with (output / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "lo')  # and a line that a crash truncated
    capsys.readouterr()
    train(config, output, quiet=True)
    assert ("resumed at step 4 of 12" in capsys.readouterr().out) == (step == 7)
    assert_same_run(output, whole)
    assert read_run(output) == read_run(whole)


def test_a_killed_process_ends_as_a_whole_one(config: RunConfig, whole: Path, tmp_path: Path):
    """SIGKILL after the first checkpoint, and the same command again."""
    settings = config.as_json() | config.as_json().pop("lora")
    command = [sys.executable, "-m", "jaxprefix.train", "--output", str(tmp_path / "run"), "--platform", "cpu"]
    for name in ("model", "train_file", "method", "batch", "max_length", "mesh", "log_every", "held_out", "lr"):
        command += [f"--{name.replace('_', '-')}", str(settings[name])]
    command += ["--steps", str(STEPS), "--save-every", "4", "--eval-every", "6", "--lora.dropout", "0.2"]
    command += ["--prefix.length", "3", "--prefix.std", "0.5"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while not (tmp_path / "run" / "checkpoints" / "4").is_dir():
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert "resumed at step" in again.stdout and "compiled the training step" in again.stdout
    assert_same_run(tmp_path / "run", whole)


def test_a_finished_run_stays_as_it_is(config: RunConfig, whole: Path):
    before = files(whole)
    train(config, whole, quiet=True)
    assert files(whole) == before


@pytest.fixture(scope="module")
def short(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first four steps of a run, to be copied and resumed."""
    return train(replace(config, steps=4), tmp_path_factory.mktemp("runs") / "short", quiet=True)


# One step of warmup, then a line to 0 after the last step: over 4 steps, and from step 5 on over 8.
LINES = {1: 1, 2: 3 / 3, 3: 2 / 3, 4: 1 / 3} | {step: (9 - step) / 7 for step in range(5, 9)}


def test_a_run_resumes_with_more_steps(config: RunConfig, short: Path, tmp_path: Path, capsys: Any):
    """It continues from its last step. Fewer steps than it has done are refused."""
    output = shutil.copytree(short, tmp_path / "run")
    train(replace(config, steps=8), output, quiet=True)
    printed = capsys.readouterr().out
    assert "resumed at step 4 of 8" in printed
    assert "steps: 8, before 4; from step 5 on the learning rate is that of a schedule of 8 steps\n" in printed
    late, early = small.metrics(output), small.metrics(short)
    assert late[: len(early)] == early and [row["step"] for row in late if "loss" in row] == list(range(1, 9))
    assert read_run(output)["steps"] == 8 and read_run(output)["config"]["steps"] == 8
    assert read_run(output)["earlier_steps"] == [4] and read_run(short)["earlier_steps"] == []
    rates = {row["step"]: row["learning_rate"] for row in late if "loss" in row}
    peak = max(config.learning_rates.values())
    assert rates == pytest.approx({step: peak * line for step, line in LINES.items()}, rel=1e-5)

    train(replace(config, steps=8), output, quiet=True)
    assert read_run(output)["earlier_steps"] == [4] and "before" not in capsys.readouterr().out
    before = files(output)
    with pytest.raises(InputError, match="is at step 8 already, beyond the requested 6"):
        train(replace(config, steps=6), output, quiet=True)
    assert files(output) == before


@pytest.mark.slow
def test_a_run_resumes_on_another_mesh(config: RunConfig, short: Path, tmp_path: Path):
    """Also with the data elsewhere."""
    output, spread = shutil.copytree(short, tmp_path / "run"), shutil.copytree(short, tmp_path / "spread")
    train(replace(config, steps=8), output, quiet=True)
    train(replace(config, steps=8, mesh="2x2", data=tmp_path), spread, quiet=True)
    for one, other in zip(small.metrics(output), small.metrics(spread), strict=True):
        assert one == pytest.approx(other, rel=1e-5)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"lr": 1e-3}, "its lr is 0.01, given 0.001"),
        ({"seed": 1}, "its seed is 0, given 1"),
        ({"method": "lora"}, r"its method is 'prefix\+lora', given 'lora'"),
        ({"prefix": PrefixTuning(length=4)}, r"its prefix is .*'length': 3.*, given .*'length': 4"),
        ({"max_length": 64}, "its max-length is 96, given 64"),
    ],
)
def test_another_run_in_the_same_place_is_refused_by_name(
    config: RunConfig, whole: Path, change: dict[str, Any], name: str
):
    before = files(whole)
    with pytest.raises(InputError, match=f"holds another run: {name}"):
        train(replace(config, **change), whole, quiet=True)
    assert files(whole) == before


def test_another_base_in_the_same_place_is_refused(config: RunConfig, tmp_path: Path):
    """The same model directory with other weights."""
    model = small.write_model(tmp_path / "model")
    config = replace(config, model=str(model), method="none")
    train(config, tmp_path / "run", quiet=True)
    small.write_model(model, scale=3)
    with pytest.raises(InputError, match="its base model has the hash"):
        train(config, tmp_path / "run", quiet=True)


def test_the_compilations_are_few_and_printed(config: RunConfig, tmp_path: Path, capsys: Any):
    """Law 7: rows of forty lengths and two passes; the last step of each pass is not full."""
    rows = [row | {"prompt": "x " * number + row["prompt"]} for number, row in enumerate(small.rows(40))]
    file = small.write_rows(tmp_path / "rows.jsonl", rows)
    config = replace(config, train_file=file, method="prefix", steps=None, epochs=2, max_length=200, held_out=0)
    train(config, tmp_path / "run", quiet=True)
    found = re.search(r"compiled the training step (\d+) times", capsys.readouterr().out)
    assert found and 1 < int(found[1]) <= 4


def test_run_json_describes_the_run(config: RunConfig, whole: Path):
    found = json.loads((whole / "run.json").read_text())
    assert RunConfig.from_json(found["config"]) == config
    assert found["steps"] == STEPS and found["finished"] is True
    assert found["trainable_parameters"] == sum(leaf.size for leaf in adapter(whole).values())
    assert found["total_parameters"] - found["trainable_parameters"] == 60_640
    assert found["versions"]["jaxprefix"] == jaxprefix.__version__ and found["versions"]["jax"] == jax.__version__
    assert found["devices"] == "1 cpu" and re.fullmatch("[0-9a-f]{64}", found["base"])


def test_a_run_repeats_from_its_run_json(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`--config run.json` repeats the run elsewhere, with the same losses and adapter."""
    from jaxprefix.train.__main__ import main

    monkeypatch.setattr(
        sys, "argv", ["train", "--config", str(whole / "run.json"), "--output", str(tmp_path / "run"), "--quiet"]
    )
    main()
    assert_same_run(tmp_path / "run", whole)
    assert read_run(tmp_path / "run") == read_run(whole)


def test_runs_are_numbered_without_output(config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A finished run stays and the next run gets the next number. An unfinished run is resumed."""
    monkeypatch.chdir(tmp_path)
    config = replace(config, method="none", model=str(Path(config.model or "").resolve()))
    first, second = train(config, quiet=True), train(config, quiet=True)
    assert [first, second] == [Path("runs/rows-none-1"), Path("runs/rows-none-2")]
    described = read_run(second) | {"finished": False}
    (second / "run.json").write_text(json.dumps(described))
    assert train(config, quiet=True) == second
    assert train(replace(config, seed=5), quiet=True) == Path("runs/rows-none-3")


def test_changed_rows_are_refused(config: RunConfig, short: Path, tmp_path: Path):
    """The position in the data refers to these rows, so a run does not resume with others."""
    run, file = shutil.copytree(short, tmp_path / "run"), Path(str(config.train_file))
    before = file.read_bytes()
    small.write_rows(file, small.rows(39, longest=2))
    try:
        with pytest.raises(InputError, match=r"the training rows have changed since .*; choose a new --output"):
            train(replace(config, steps=5), run, quiet=True)
    finally:
        file.write_bytes(before)


def test_a_changed_run_json_is_reported_in_one_line(whole: Path, tmp_path: Path):
    """The checkpoint is undamaged, but has other shapes than run.json. Orbax would raise an error of many lines."""
    run = shutil.copytree(whole, tmp_path / "run")
    text = (run / "run.json").read_text()
    (run / "run.json").write_text(text.replace('"rank": 4', '"rank": 8'))
    # In a new process: the state that Orbax leaves behind would cause warnings in other tests.
    command = [sys.executable, "-m", "jaxprefix.generate", str(run), "a prompt"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert f"checkpoints/{STEPS} does not match run.json (['lora']" in line
