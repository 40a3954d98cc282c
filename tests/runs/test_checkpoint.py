"""A damaged checkpoint is noticed before it is read, and the last undamaged one is used."""

import json
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small

from jaxprefix.errors import InputError
from jaxprefix.io import checksums
from jaxprefix.runs.checkpoint import NOTES, Checkpoints
from jaxprefix.runs.config import RunConfig
from jaxprefix.runs.directory import read_run
from jaxprefix.runs.saved import load_run
from jaxprefix.train.held_out import HeldOutLoss
from jaxprefix.train.loop import train


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    folder = tmp_path_factory.mktemp("data")
    model = small.write_model(folder / "model", scale=5)
    rows = small.write_rows(folder / "rows.jsonl", small.rows(24, longest=1))
    return small.configuration(model, rows, steps=6, save_every=2, eval_every=2)


@pytest.fixture(scope="module")
def whole(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps; it keeps 4 and 6."""
    return train(config, tmp_path_factory.mktemp("runs") / "whole", quiet=True)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flipped(path: Path) -> None:
    found = bytearray(path.read_bytes())
    found[len(found) // 2] ^= 1
    path.write_bytes(found)


EVERY = r"every checkpoint in .* is damaged \(step 6: .*; step 4: .*\); restore one from"
DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated": (truncated, r"has \d+ bytes, expected \d+"),
    "flipped": (flipped, "has a different SHA-256"),
    "deleted": (Path.unlink, "is missing"),
}

SOME = {"_CHECKPOINT_METADATA"}


def parts(step: Path) -> list[Path]:
    """The files that make up a checkpoint."""
    return sorted(path for path in step.rglob("*") if path.is_file() and path.name not in {*NOTES, "hashes.json"})


def files(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_file_is_checked(whole: Path, tmp_path: Path, damage: str, capsys: Any):
    """Reading uses the step before, prints a line about it, and changes nothing."""
    change, why = DAMAGES[damage]
    expected = load_run(shutil.copytree(whole, tmp_path / "before"))
    shutil.rmtree(tmp_path / "before" / "checkpoints" / "6")
    expected = load_run(tmp_path / "before")
    names = [path.relative_to(whole) for path in parts(whole / "checkpoints" / "6")]
    assert len(names) > 15
    for number, name in enumerate(names):
        run = shutil.copytree(whole, tmp_path / f"run-{number}")
        change(run / name)
        before = files(run)
        capsys.readouterr()
        found = load_run(run)
        assert found.step == 4
        np.testing.assert_array_equal(found.params["hidden"], expected.params["hidden"])
        line = capsys.readouterr().err
        assert line.count("\n") == 1 and re.search(rf"checkpoints/6 is damaged \(.* {why}\): using step 4", line)
        assert files(run) == before


@pytest.mark.parametrize(
    "name", [*SOME, *(pytest.param(name, marks=pytest.mark.slow) for name in sorted(NOTES - SOME))]
)
@pytest.mark.parametrize(
    "damage", ["deleted", *(pytest.param(each, marks=pytest.mark.slow) for each in ("truncated", "flipped"))]
)
def test_what_is_not_checked_is_not_needed(whole: Path, tmp_path: Path, name: str, damage: str, config: RunConfig):
    """Timestamps of Orbax, which are not read when the run is loaded or resumed."""
    run = shutil.copytree(whole, tmp_path / "run")
    for step in (4, 6):
        for path in (run / "checkpoints" / str(step)).rglob(name):
            DAMAGES[damage][0](path)
    assert load_run(run).step == 6
    train(replace(config, steps=8), run, quiet=True)
    assert load_run(run).step == 8


@pytest.mark.parametrize(
    "damage", ["flipped", *(pytest.param(each, marks=pytest.mark.slow) for each in ("truncated", "deleted"))]
)
def test_training_resumes_from_the_last_undamaged_checkpoint(
    config: RunConfig, whole: Path, tmp_path: Path, damage: str, capsys: Any
):
    """It ends as the undamaged run does. The damaged checkpoint is set aside, also if this happens twice."""
    run = shutil.copytree(whole, tmp_path / "run")
    for name in ("damaged-6", "damaged-6-2"):
        data = max(parts(run / "checkpoints" / "6"), key=lambda path: path.stat().st_size)
        DAMAGES[damage][0](data)
        damaged = files(run / "checkpoints" / "6")
        capsys.readouterr()
        train(config, run, quiet=True)
        said = capsys.readouterr()
        assert f"going back to step 4; it is kept as {name}\n" in said.err and said.err.count("\n") == 1
        assert "resumed at step 4 of 6" in said.out
        assert files(run / "checkpoints" / name) == damaged
        assert small.metrics(run) == small.metrics(whole)
        for one, other in ((run, whole), (whole, run)):
            np.testing.assert_array_equal(load_run(one).params["hidden"], load_run(other).params["hidden"])


def test_if_all_are_damaged_nothing_is_changed(config: RunConfig, whole: Path, tmp_path: Path):
    run = shutil.copytree(whole, tmp_path / "run")
    for step in ("4", "6"):
        flipped(parts(run / "checkpoints" / step)[-1])
    before = files(run)
    for work in (lambda: train(config, run, quiet=True), lambda: load_run(run)):
        with pytest.raises(InputError, match=EVERY):
            work()
        assert files(run) == before


def test_a_checkpoint_without_hashes_is_read_with_a_warning(whole: Path, tmp_path: Path, capsys: Any):
    run = shutil.copytree(whole, tmp_path / "run")
    (run / "checkpoints" / "6" / "hashes.json").unlink()
    assert load_run(run).step == 6
    assert "has no hashes.json (an earlier version's?): it is read without a check\n" in capsys.readouterr().err


def test_a_damaged_list_of_hashes_is_damage(whole: Path, tmp_path: Path, capsys: Any):
    run = shutil.copytree(whole, tmp_path / "run")
    truncated(run / "checkpoints" / "6" / "hashes.json")
    (run / "checkpoints" / "6" / "hashes.json").write_bytes(b"\xff{")
    assert load_run(run).step == 4
    assert "its hashes.json cannot be read" in capsys.readouterr().err


def test_a_checkpoint_that_vanishes_while_it_is_read(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Training continues while evaluation reads: it removes the step and saves a newer one."""
    run = shutil.copytree(whole, tmp_path / "run")
    checked = checksums.first_mismatch
    (run / "checkpoints" / "6").rename(tmp_path / "6")

    def problem(directory: Path) -> str | None:
        if directory.name == "4":
            shutil.rmtree(directory)
            (tmp_path / "6").rename(run / "checkpoints" / "6")
        return checked(directory)

    monkeypatch.setattr(checksums, "first_mismatch", problem)
    assert Checkpoints(run)._last_undamaged() == (6, {})


LOSSES = (9.0, 3.0, 1.0, math.nan, 2.0, 1.5, 4.0)  # at the steps 0, 2, 4, ...


def test_the_last_few_and_the_best_are_kept(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    """run.json says which is the best, also after a stop."""
    losses = iter(LOSSES)
    monkeypatch.setattr(HeldOutLoss, "start", lambda *_: (next(losses), 2.0))
    monkeypatch.setattr(HeldOutLoss, "__call__", lambda *_: next(losses))
    config = replace(config, steps=12, keep=1)
    small.train_until(9, config, tmp_path / "run")
    train(config, tmp_path / "run", quiet=True)
    assert Checkpoints(tmp_path / "run").steps == [4, 12]
    assert read_run(tmp_path / "run")["best"] == {"step": 4, "held_out_loss": 1.0}
    assert "best held-out loss of the checkpoints: 1.0000, step 4\n" in capsys.readouterr().out
    position = json.loads((tmp_path / "run" / "checkpoints" / "12" / "position" / "metadata").read_text())
    assert position == {"step": 12, "skipped": 0, "best": {"step": 4, "held_out_loss": 1.0}}
    written = [row["held_out_loss"] for row in small.metrics(tmp_path / "run") if "held_out_loss" in row]
    assert written == [9.0, 3.0, 1.0, None, 2.0, 1.5, 4.0]
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == ["12", "4"]
