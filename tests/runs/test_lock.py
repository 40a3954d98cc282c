"""One training at a time in a directory, no directory for two runs, and none that a sudden end makes unusable."""

import errno
import fcntl
import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import small

from jaxprefix.errors import InputError
from jaxprefix.io.atomic import entries, exclusive
from jaxprefix.runs.config import RunConfig
from jaxprefix.runs.directory import read_run
from jaxprefix.runs.lock import run_lock
from jaxprefix.runs.saved import load_run
from jaxprefix.train.loop import train


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    folder = tmp_path_factory.mktemp("data")
    rows = small.write_rows(folder / "rows.jsonl", small.rows(12, longest=1))
    return small.configuration(small.write_model(folder / "model"), rows, steps=1, held_out=0)


@pytest.fixture(scope="module")
def run(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(config, tmp_path_factory.mktemp("runs") / "run", quiet=True)


def test_the_second_is_refused_while_the_first_lives(config: RunConfig, run: Path):
    """The lock belongs to an open file, so this process can hold it against itself."""
    before = sorted(run.iterdir())
    base = read_run(run)["base"]
    with run_lock(run, config, "", base):
        with pytest.raises(InputError, match=r"another command trains in .*; wait until it ends, or choose"):
            train(config, run, quiet=True)
        with exclusive(run):  # the lock of an evaluation
            assert load_run(run).step == 1
    train(config, run, quiet=True)
    assert sorted(run.iterdir()) == before


HOLD = """
import sys
from pathlib import Path
from jaxprefix.io.atomic import exclusive
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_ends_with_its_process(tmp_path: Path):
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdin=-1, stdout=-1, text=True) as process:
        assert process.stdout and process.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="another process writes to"), exclusive(tmp_path):
            pass
        assert list(tmp_path.iterdir())
        process.kill()
    assert list(tmp_path.iterdir()) and not entries(tmp_path)  # a killed process leaves its file
    with exclusive(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
def test_a_file_system_without_locks(tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with exclusive(tmp_path), exclusive(tmp_path):
        pass
    line = f"{tmp_path} could not be locked ({os.strerror(number)}); make sure that no other command writes to it\n"
    assert capsys.readouterr().err == 2 * line and not list(tmp_path.iterdir())


def test_a_refused_command_leaves_no_files(config: RunConfig, tmp_path: Path):
    with pytest.raises(InputError, match="is beyond the model's 1024 positions"):
        train(replace(config, max_length=5000), tmp_path / "deep" / "run", quiet=True)
    assert list(tmp_path.iterdir()) == []
    train(replace(config, method="none"), tmp_path / "none", quiet=True)
    assert [path.name for path in (tmp_path / "none").iterdir()] == ["run.json"]


def test_many_at_once_get_a_directory_each(config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    together, found = threading.Barrier(16), list[Path]()

    def work() -> None:
        together.wait()
        with run_lock(None, config, "rows-prefix", "base") as directory:
            found.append(directory)
            together.wait()

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted(Path("runs") / f"rows-prefix-{number}" for number in range(1, 17))
    assert not list(tmp_path.glob("runs/*"))


def test_what_another_command_made_is_removed_too(config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Another command took the same number, made its folders and was second to lock."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "rows-prefix-1" / "checkpoints").mkdir(parents=True)
    with run_lock(None, config, "rows-prefix", "base") as directory:
        assert directory == Path("runs/rows-prefix-1")
    assert not list(tmp_path.glob("runs/*"))


def test_a_number_in_use_is_passed_over(config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Path):
    """A command without --output resumes an unfinished run, unless another command trains in it."""
    monkeypatch.chdir(tmp_path)
    base = read_run(run)["base"]
    first = train(replace(config, method="none"), quiet=True)
    (first / "run.json").write_text(json.dumps(read_run(first) | {"finished": False}))
    with run_lock(first, replace(config, method="none"), "", base):
        assert train(replace(config, method="none"), quiet=True) == Path("runs/rows-none-2")
    assert train(replace(config, method="none"), quiet=True) == first


@pytest.mark.parametrize(
    "left",
    [
        ("checkpoints", "run.json.new"),
        (".jaxprefix-lock-training",),
        pytest.param(("checkpoints",), marks=pytest.mark.slow),
        pytest.param(("run.json.new",), marks=pytest.mark.slow),
    ],
)
def test_a_directory_that_was_just_begun_can_be_used(config: RunConfig, tmp_path: Path, left: tuple[str, ...]):
    """All files that exist when a process ends before run.json is written."""
    for name in left:
        if name == "checkpoints":
            (tmp_path / "run" / name).mkdir(parents=True)
        else:
            (tmp_path / "run").mkdir(exist_ok=True)
            (tmp_path / "run" / name).write_text('{"conf')
    assert read_run(train(config, tmp_path / "run", quiet=True))["finished"]


@pytest.mark.parametrize("left", ["notes.txt", "checkpoints/4"])
def test_other_files_are_still_refused(config: RunConfig, tmp_path: Path, left: str):
    (tmp_path / "run" / left).mkdir(parents=True)
    with pytest.raises(InputError, match=r"holds other files and no run\.json"):
        train(config, tmp_path / "run", quiet=True)


def test_run_json_is_there_before_any_checkpoint(config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def save(*_: object) -> None:
        assert not read_run(tmp_path / "run")["finished"] and not list((tmp_path / "run").glob("checkpoints/*"))
        raise small.Stopped

    monkeypatch.setattr("jaxprefix.runs.checkpoint.Checkpoints.save", save)
    with pytest.raises(small.Stopped):
        train(config, tmp_path / "run", quiet=True)
    monkeypatch.undo()
    assert read_run(train(config, tmp_path / "run", quiet=True))["finished"]
