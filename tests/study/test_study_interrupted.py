"""A study that is killed and resumed, or that two processes share, ends with the files of an uninterrupted one."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import test_study
from test_study import SPECIFICATION, planned, write_model

from jaxprefix.io import atomic
from jaxprefix.runs.checkpoint import Checkpoints
from jaxprefix.study import __main__ as command
from jaxprefix.study.folder import Folder

FEW = SPECIFICATION.replace("lr = [1e-3, 1e-1], seed = [0, 1]", "lr = 1e-3")
MANY = """
[run]
task = ["babel-nli", "babel-choice"]
steps = 6
batch = 4
save_every = 2
eval_every = 2
limit = 64
max_length = 160
[evaluation]
limit = 4
batch = 8
languages = "en,de,sw"
[[table]]
name = "Many"
select = "loss"
baseline = { method = "none" }
[[table.grid]]
run = { method = ["none", "lora", "prefix"], lr = [1e-3, 3e-3, 1e-2], seed = [0, 1] }
"""


def files(folder: Path) -> dict[str, bytes]:
    """study.json, the tables and the pictures."""
    paths = [path for path in folder.iterdir() if path.is_file() and path.name != "log.txt"]
    return {path.name: path.read_bytes() for path in paths if not path.name.startswith(atomic.LOCK)}


def arguments(specification: Path, model: Path, output: Path) -> list[str]:
    own = ["-m", "jaxprefix.study", str(specification), "--model", str(model), "--output", str(output), "--mesh", "1x1"]
    return [sys.executable, *own, "--platform", "cpu"]


def start(command_line: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as out:
        return subprocess.Popen(
            command_line, stdout=out, stderr=out, cwd=log.parent, env={**os.environ, "COLUMNS": "200"}
        )


class Killed(BaseException):
    """The end of the process, which nothing catches."""


def test_a_study_that_stops_anywhere_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_pictures: None):
    """It stops after one write of a file, then after three more, and so on, until it is done."""
    model = write_model(tmp_path / "tiny")
    study = planned(model, FEW)
    whole, folder = Folder(tmp_path / "whole", mesh="1x1"), Folder(tmp_path / "stopped", mesh="1x1")
    command.run(study, whole, quiet=True)
    writes, stops = 0, 0
    replaced, save = os.replace, Checkpoints.save

    def count() -> None:
        nonlocal writes
        writes += 1
        if writes > 1 + 2 * stops:
            raise Killed

    def stopping_replace(*paths: Any) -> None:
        count()
        replaced(*paths)

    def stopping_save(self: Checkpoints, *values: Any) -> None:
        count()
        save(self, *values)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", stopping_replace)
        patch.setattr(Checkpoints, "save", stopping_save)
        while True:
            try:
                command.run(study, folder, quiet=True)
                break
            except Killed:
                stops, writes = stops + 1, 0
    assert stops > 3
    assert files(folder.root) == files(whole.root)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """The specification, its model, and an uninterrupted study."""
    folder = tmp_path_factory.mktemp("many")
    (folder / "many.toml").write_text(MANY)
    paths = folder / "many.toml", write_model(folder / "tiny"), folder / "whole"
    assert start(arguments(*paths), folder / "whole.txt").wait(1800) == 0, (folder / "whole.txt").read_text()
    return paths


@pytest.mark.slow
def test_twenty_kills_at_random_moments_change_nothing(many: tuple[Path, Path, Path], tmp_path: Path):
    specification, model, whole = many
    output, chance, kills = tmp_path / "killed", random.Random(0), 0
    while kills < 20:
        process = start(arguments(specification, model, output), tmp_path / "killed.txt")
        try:
            assert process.wait(chance.uniform(4, 20)) == 0
            shutil.rmtree(output)  # it was done before twenty kills: again from the beginning
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
    assert start(arguments(specification, model, output), tmp_path / "killed.txt").wait(1800) == 0
    assert files(output) == files(whole)


@pytest.mark.slow
def test_two_processes_share_the_work(many: tuple[Path, Path, Path], tmp_path: Path):
    """No stage of a cell is done twice, both end, and the files are those of one process."""
    specification, model, whole = many
    output = tmp_path / "shared"
    logs = [tmp_path / "one.txt", tmp_path / "two.txt"]
    processes = [start(arguments(specification, model, output), log) for log in logs]
    assert [process.wait(1800) for process in processes] == [0, 0], [log.read_text() for log in logs]
    done = [re.findall(r"(?m)^\d+ of \d+: (\w+ \S+): ", log.read_text()) for log in logs]
    assert all(done) and len(set(done[0] + done[1])) == len(done[0] + done[1])
    assert files(output) == files(whole)


def test_a_cell_of_another_process_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_pictures: None):
    """The lock of a cell is held at first; meanwhile the others are done."""
    study = planned(write_model(tmp_path / "tiny"), FEW)
    folder = Folder(tmp_path / "study", mesh="1x1")
    cell = next(cell for cell in study.cells() if cell.config.method == "lora")
    order: list[str] = []
    train = test_study.working.train

    def traced(config: Any, output: Path, **options: Any) -> Path:
        order.append(output.name)
        return train(config, output, **options)

    folder.open(study)
    held = atomic.lock(folder.lock(cell), "held")
    held.__enter__()
    monkeypatch.setattr(test_study.working, "train", traced)
    monkeypatch.setattr(time, "sleep", lambda _: held.__exit__(None, None, None))
    command.run(study, folder, quiet=True)
    assert order[-1] == cell.run and len(order) == len(set(order)) == 2
    assert json.loads((folder.root / "study.json").read_text())["tables"]["Methods"]["rows"][1]["tasks"]
