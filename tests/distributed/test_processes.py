"""Several processes on 127.0.0.1: they have the same losses, one writes, one reads the checkpoint, and mistakes are
refused.
"""

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small

from jaxprefix.distributed import mesh as meshes
from jaxprefix.distributed import processes
from jaxprefix.errors import InputError
from jaxprefix.runs.saved import load_run
from jaxprefix.train.loop import train
from jaxprefix.train.metrics import read

FLAGS = (
    "--batch 8 --max-length 96 --log-every 1 --save-every 4 --held-out 4 --lr 0.01 --dtype float32 --platform cpu "
    "--mesh 4x2 --quiet"
)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model and rows."""
    place = tmp_path_factory.mktemp("given")
    return small.write_model(place / "model", scale=5), small.write_rows(place / "rows.jsonl", small.rows(60))


def together(given: tuple[Path, Path], output: Path, processes: int, steps: int) -> list[Any]:
    """The results of a training command with this many processes on a mesh of 4x2."""
    command = f"-m jaxprefix.train --model {given[0]} --train-file {given[1]} --steps {steps} {FLAGS}".split()
    return small.together([*command, "--output", str(output)], processes)


def losses(directory: Path) -> list[float]:
    return [row["loss"] for row in read(directory) if "loss" in row]


def alone(given: tuple[Path, Path], output: Path, steps: int) -> Path:
    settings = {"batch": 8, "save_every": 4, "dtype": "float32", "platform": "cpu", "method": "prefix"}
    return train(small.configuration(*given, steps=steps, **settings), output, quiet=True)


@pytest.mark.slow
def test_two_processes_are_one_run(given: tuple[Path, Path], tmp_path: Path):
    """Two processes train eight steps and resume; then one process resumes on another mesh."""
    done = together(given, tmp_path / "run", 2, 8)
    assert [each.returncode for each in done] == [0, 0], done
    first, second = ({line for line in each.stdout.splitlines() if "rank" not in line.lower()} for each in done)
    assert first and not first & second  # only the main process prints; Gloo's threads interleave their lines
    alone(given, tmp_path / "alone", 8)
    np.testing.assert_allclose(losses(tmp_path / "run"), losses(tmp_path / "alone"), rtol=0, atol=1e-5)
    assert len(losses(tmp_path / "run")) == 8
    done = together(given, tmp_path / "run", 2, 10)
    assert "resumed at step 8 of 10" in done[0].stdout, done
    alone(given, tmp_path / "run", 12)
    assert len(losses(tmp_path / "run")) == 12 and load_run(tmp_path / "run").step == 12


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_fifty_steps(given: tuple[Path, Path], tmp_path: Path, processes: int):
    done = together(given, tmp_path / "run", processes, 50)
    assert {each.returncode for each in done} == {0}, done
    alone(given, tmp_path / "alone", 50)
    difference = np.abs(np.subtract(losses(tmp_path / "run"), losses(tmp_path / "alone"))).max()
    print(f"{processes} processes: largest difference {difference:.1e}")  # pytest -rP
    assert difference < 1e-4


def test_all_processes_are_refused_if_the_main_one_is(given: tuple[Path, Path], tmp_path: Path):
    """No process waits for one that has ended."""
    (tmp_path / "theirs").write_text("something of theirs")
    done = together(given, tmp_path, 2, 4)
    assert [each.returncode for each in done] == [2, 2]
    assert "emulated" in done[0].stdout and "emulated" not in done[1].stdout
    assert "holds other files" in done[0].stderr.splitlines()[-1]
    assert done[1].stderr.splitlines()[-1] == "error: the main process failed; its error message says why"
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]


@pytest.mark.parametrize("text", ["", "somewhere", "10.0.0.1,0/2", "10.0.0.1:80,2/2", "10.0.0.1:80,0/0", "h:1,-1/2"])
def test_an_invalid_coordinator_address(text: str):
    with pytest.raises(InputError) as raised:
        processes.initialize(text)
    assert str(raised.value) == (
        f"--hosts {text!r} is neither auto nor ADDRESS:PORT,PROCESS/PROCESSES such as 10.0.0.1:8476,0/4"
    )


# JAX itself would abort the process, with a stack trace.
JOIN = """
import sys
from jaxprefix.distributed import processes
from jaxprefix.io import terminal
terminal.run(lambda: processes.initialize(sys.argv[1], seconds=1))
"""


@pytest.mark.parametrize("process", [pytest.param("0/3", marks=pytest.mark.slow), "1/2"])
def test_missing_processes(process: str):
    text = f"127.0.0.1:{small.free_port()},{process}"
    done = subprocess.run([sys.executable, "-c", JOIN, text], capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "waiting for the other processes, at most 1 s",
        f"error: --hosts {text}: the processes could not connect (not all of them connected within 1 s); start all of "
        "them with the same address, a free port, and different numbers",
    ]


def test_a_port_in_use():
    with socket.create_server(("", 0)) as server:
        text = f"127.0.0.1:{server.getsockname()[1]},0/2"
        done = subprocess.run([sys.executable, "-c", JOIN, text], capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: --hosts {text}: cannot listen on port ")


def test_a_single_process_agrees_with_itself():
    assert processes.process_count() == 1 and processes.is_main_process()
    assert (
        processes.any_process(True) is True
        and processes.any_process(False) is False
        and processes.broadcast_from_main(7) == 7
    )
    mesh = meshes.make_mesh("4x2")
    leaf = np.arange(16.0).reshape(8, 2)
    np.testing.assert_array_equal(meshes.shard_batch(mesh, leaf), leaf)
