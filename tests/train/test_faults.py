"""Failures of machines: a run that is killed at any moment, a full disk. It ends as if nothing had happened."""

import errno
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small

from jaxprefix.io.atomic import write_atomically
from jaxprefix.runs.config import RunConfig
from jaxprefix.runs.directory import read_run
from jaxprefix.runs.saved import load_run
from jaxprefix.train.loop import train

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    small.write_model(folder / "model", scale=5)
    small.write_rows(folder / "rows.jsonl", small.rows(40, longest=2))
    return folder


def script(folder: Path, name: str, *arguments: object) -> str:
    """Runs a script of this folder and returns what it prints."""
    places = os.pathsep.join([str(HERE.parents[1]), str(HERE.parent)])
    environment = os.environ | {"PYTHONPATH": places}
    command = [sys.executable, "-W", "ignore", HERE / name, folder / "model", folder / "rows.jsonl", *arguments]
    done = subprocess.run([str(each) for each in command], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow  # one kill of a process is in test_resume.py
def test_kills_at_any_moment_change_nothing(folder: Path, tmp_path: Path):
    """Each is followed by the same command: the adapter, the optimizer and the metrics of every step are equal, bit for
    bit.
    """
    found = json.loads(script(folder, "kills.py", tmp_path, 200, 0))
    assert found["kills"] == 200 and found["identical"] == found["runs"] > 0
    assert found["unreadable"] == found["failed"] == 0 and found["resumes"] > 0 and found["in_a_save"] > 0


@pytest.mark.slow
def test_a_long_run_uses_no_more_resources_than_at_its_start(folder: Path, tmp_path: Path):
    """20,000 steps: neither memory nor the time of a step grows."""
    found = {
        row["step"]: row for row in map(json.loads, script(folder, "soak.py", tmp_path / "run", 20000).splitlines())
    }
    assert found[20000]["megabytes"] < found[2000]["megabytes"] * 1.05 + 10
    assert found[20000]["threads"] < 20 and found[20000]["programs"] == found[2000]["programs"]
    assert found[20000]["seconds"] < 5 * found[2000]["seconds"]  # of a CPU, in the last 1,000


@pytest.fixture(scope="module")
def config(folder: Path) -> RunConfig:
    return small.configuration(folder / "model", folder / "rows.jsonl", steps=20, save_every=2, eval_every=100)


@pytest.fixture(scope="module")
def whole(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(config, tmp_path_factory.mktemp("runs") / "whole", quiet=True)


def command(config: RunConfig, output: Path) -> list[str]:
    found = [sys.executable, "-W", "ignore", "-m", "jaxprefix.train", "--output", str(output), "--platform", "cpu"]
    for name in "model train_file batch max_length mesh held_out lr log_every save_every eval_every steps".split():
        found += [f"--{name.replace('_', '-')}", str(getattr(config, name))]
    return found


def assert_goes_on(config: RunConfig, run: Path, whole: Path) -> None:
    train(config, run, quiet=True)
    assert small.metrics(run) == small.metrics(whole)
    np.testing.assert_array_equal(load_run(run).params["hidden"], load_run(whole).params["hidden"])


def assert_one_line(done: "subprocess.CompletedProcess[str]", why: str) -> str:
    assert done.returncode == 2, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and why in errors[0], done.stderr
    assert "kept" in errors[0]
    return errors[0]


LIMITED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        (2_500, "a checkpoint cannot be written to"),
        pytest.param(600, "run could not be written to", marks=pytest.mark.slow),
        pytest.param(40, "run could not be written to", marks=pytest.mark.slow),
    ],
)
def test_a_file_that_cannot_grow(config: RunConfig, whole: Path, tmp_path: Path, limit: int, said: str):
    """The kernel refuses to write beyond a size, in a checkpoint or earlier in run.json. Threads of Orbax that are
    still writing may print traces besides, outside Python's hooks.
    """
    environment = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"}  # its files could not grow either
    limited = [sys.executable, "-c", LIMITED, str(limit), *command(config, tmp_path / "run")]
    done = subprocess.run(limited, env=environment, capture_output=True, text=True)
    assert_one_line(done, said)
    assert "File too large" in done.stderr
    assert_goes_on(config, tmp_path / "run", whole)


def test_a_file_that_cannot_be_written_leaves_the_older_one_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    write_atomically(tmp_path / "made" / "report.md", b"older")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "made" / "report.md", b"newer")
    assert [(path.name, path.read_bytes()) for path in (tmp_path / "made").iterdir()] == [("report.md", b"older")]


MOUNT = ["unshare", "-Urm", "sh", "-c"]


def can_mount() -> bool:
    try:
        return not subprocess.run([*MOUNT, "mount -t tmpfs tmpfs /mnt"], capture_output=True).returncode
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not can_mount(), reason="no small disk can be had here: unshare and mount are refused")
@pytest.mark.parametrize("size", [100, 450])
def test_a_full_disk(config: RunConfig, whole: Path, tmp_path: Path, size: int):
    """Before and after the first checkpoint; a copy of the full disk has a whole checkpoint, and the run resumes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    train_there = shlex.join(command(config, disk / "run"))
    line = f"mount -t tmpfs -o size={size}k tmpfs {disk} && {{ {train_there}; code=$?; "
    done = subprocess.run(
        [*MOUNT, line + f"cp -r {disk}/run {tmp_path}; exit $code; }}"], capture_output=True, text=True
    )
    assert done.stderr == assert_one_line(done, "No space left on device") + "\n"
    assert not read_run(tmp_path / "run")["finished"]
    names = [path.name for path in (tmp_path / "run").glob("checkpoints/*") if path.name.isdecimal()]
    assert bool(names) == (size == 450)
    if names:
        assert load_run(tmp_path / "run").step == max(int(name) for name in names) < 20
    assert_goes_on(config, tmp_path / "run", whole)
