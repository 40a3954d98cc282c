"""--engine ray: what is refused, and a local cluster that loses a worker and ends with the files of one process."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_study import planned, write_model
from test_study_interrupted import arguments, files, start

from jaxprefix.errors import InputError
from jaxprefix.study import __main__ as command
from jaxprefix.study.folder import Folder
from jaxprefix.study.on_ray import workers

SPECIFICATION = """
[run]
task = "babel-choice"
steps = 6
batch = 4
save_every = 2
limit = 64
max_length = 256
[evaluation]
limit = 2
batch = 4
languages = "en,de"
[[table]]
name = "Methods"
select = "loss"
baseline = { method = "none" }
[[table.grid]]
run = { method = ["none", "lora"], lr = [1e-3, 1e-2, 1e-1] }
"""
TWO_CPUS = """
from jaxprefix.io import terminal
from jaxprefix.study import __main__, on_ray
on_ray.LOCAL["num_cpus"] = 2
terminal.run(__main__.main)
"""
NODES = (
    {"Alive": True, "Resources": {"CPU": 16.0, "GPU": 4.0, "memory": 1e9}},
    {"Alive": True, "Resources": {"CPU": 2.0, "GPU": 1.0}},
    {"Alive": False, "Resources": {"GPU": 64.0}},
)
TPUS = ({"Alive": True, "Resources": {"CPU": 8.0, "TPU": 4.0}},)


@pytest.mark.parametrize(
    ("nodes", "mesh", "platform", "runs", "expected"),
    [
        (NODES, None, None, 60, ({"num_cpus": 0, "num_gpus": 1}, 5)),
        (NODES, "2x1", "cuda", 60, ({"num_cpus": 0, "num_gpus": 2}, 2)),
        (NODES, "2x2", None, 60, ({"num_cpus": 0, "num_gpus": 4}, 1)),
        (NODES, "1x2", "cpu", 60, ({"num_cpus": 2}, 9)),
        (NODES, None, "cpu", 3, ({"num_cpus": 1}, 3)),
        (TPUS, "2x2", None, 60, ({"num_cpus": 0, "resources": {"TPU": 4}}, 1)),
    ],
)
def test_a_worker_has_the_devices_of_the_mesh(
    nodes: Any, mesh: str, platform: Any, runs: int, expected: tuple[dict[str, Any], int]
):
    assert workers(nodes, Folder(Path(), mesh=mesh, platform=platform), runs) == expected


@pytest.mark.parametrize(
    ("mesh", "platform", "found"),
    [("4x2", None, "8 of GPU on one node, but the largest node of the Ray cluster has 4"), ("1x1", "tpu", "has 0;")],
)
def test_a_cell_that_needs_more_than_the_cluster_has(mesh: str, platform: Any, found: str):
    with pytest.raises(InputError, match=f"a cell with --mesh {mesh} needs .*{found}"):
        workers(NODES, Folder(Path(), mesh=mesh, platform=platform), 60)


def test_ray_is_an_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr(sys, "argv", ["study", "babel", "--engine", "ray", "--output", str(tmp_path / "study")])
    with pytest.raises(InputError, match=r"--engine ray needs an extra: pip install 'jaxprefix\[ray\]'"):
        command.main()


def descendants(process: int) -> Iterator[tuple[int, str]]:
    """The id and the command line of every process that this one has started, directly or not."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            line = (path.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (OSError, ValueError):
            continue  # it has ended
        if parent == process:
            yield int(path.parent.name), line
            yield from descendants(int(path.parent.name))


def kill_a_worker(driver: subprocess.Popen[Any], folder: Folder) -> None:
    """Kills one of the two workers while a run is not finished."""
    while driver.poll() is None:
        runs = [json.loads(path.read_text()) for path in folder.root.glob("*/run.json")]
        workers = [process for process, line in descendants(driver.pid) if line.startswith("ray::_work")]
        if len(workers) == 2 and any(not run["finished"] for run in runs):
            os.kill(workers[0], signal.SIGKILL)
            return
        time.sleep(0.02)
    raise AssertionError("the command ended before both workers trained")


@pytest.mark.slow
def test_a_worker_that_is_lost_changes_nothing(tmp_path: Path):
    (tmp_path / "small.toml").write_text(SPECIFICATION)
    model = write_model(tmp_path / "tiny")
    study = planned(model, SPECIFICATION)
    alone, shared = (Folder(tmp_path / name, mesh="1x1", platform="cpu") for name in ("alone", "shared"))
    command.run(study, alone, quiet=True)
    flags = arguments(tmp_path / "small.toml", model, shared.root)[3:]
    log = tmp_path / "log.txt"
    driver = start([sys.executable, "-c", TWO_CPUS, *flags, "--engine", "ray"], log)
    try:
        kill_a_worker(driver, shared)
        assert driver.wait(1800) == 0, log.read_text()
    finally:
        driver.kill()
    assert files(shared.root) == files(alone.root)
    for cell in study.cells():
        for name in ("run.json", "predictions.jsonl", "report.json"):
            expected, path = alone.run(cell) / name, shared.run(cell) / name
            assert path.exists() == expected.exists()  # only the chosen learning rate is evaluated
            assert not path.exists() or path.read_bytes() == expected.read_bytes()
    assert "Ray: 2 workers, each with num_cpus=1" in log.read_text()
    assert list(descendants(os.getpid())) == []
