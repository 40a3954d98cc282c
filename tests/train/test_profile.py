"""--profile: the trace that JAX writes is read back and shows where the host's time goes; the run is unchanged."""

import gzip
import json
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import small

from jaxprefix.distributed import processes
from jaxprefix.errors import InputError
from jaxprefix.io import terminal
from jaxprefix.io.terminal import Stopped
from jaxprefix.runs.config import RunConfig
from jaxprefix.runs.directory import read_run
from jaxprefix.train.__main__ import main
from jaxprefix.train.batches import Plan
from jaxprefix.train.loop import train
from jaxprefix.train.metrics import MetricsLogger
from jaxprefix.train.profile import Profile
from jaxprefix.train.signals import StopRequest

STEPS = 12


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """Metrics are read every step, and the rows of each step have one shape."""
    folder = tmp_path_factory.mktemp("data")
    rows = small.write_rows(folder / "rows.jsonl", small.rows(40, longest=1))
    model = small.write_model(folder / "model", scale=5)
    return small.configuration(model, rows, method="lora", steps=STEPS, save_every=4, eval_every=4)


def traces(directory: Path) -> list[Path]:
    return sorted((directory / "profile").rglob("*.trace.json.gz"))


class Trace:
    """The events of the only trace of a run, times in microseconds."""

    def __init__(self, directory: Path) -> None:
        (path,) = traces(directory)
        assert (path.parent / path.name.replace(".trace.json.gz", ".xplane.pb")).stat().st_size  # XProf reads this one
        events = [each for each in json.loads(gzip.decompress(path.read_bytes()))["traceEvents"] if "ph" in each]
        threads = {each["tid"]: each["args"]["name"] for each in events if each["name"] == "thread_name"}
        self.events = [each for each in events if each["ph"] == "X"]
        (host,) = {each["tid"] for each in self.events if each["name"] == "train"}
        self.host = [each for each in self.events if each["tid"] == host]
        self.device = [each for each in self.events if threads[each["tid"]].startswith("tf_XLA")]

    def named(self, name: str) -> list[dict[str, Any]]:
        return sorted((each for each in self.host if each["name"] == name), key=lambda each: each["ts"])

    def seconds(self, *names: str) -> float:
        return sum(each["dur"] for name in names for each in self.named(name)) / 1e6

    @property
    def steps(self) -> list[int]:
        return [int(each["args"]["step_num"]) for each in self.named("train")]

    def in_step(self, name: str) -> list[int]:
        """The steps that contain this phase of the host."""
        found = []
        for part in self.named(name):
            (step,) = [each for each in self.named("train") if each["ts"] <= part["ts"] < each["ts"] + each["dur"]]
            assert part["ts"] + part["dur"] <= step["ts"] + step["dur"] + 1
            found.append(int(step["args"]["step_num"]))
        return found

    def computing(self, name: str) -> float:
        """The share of the host's time in this phase during which the devices computed."""
        shared = 0.0
        for part in self.named(name):
            at, end = part["ts"], part["ts"] + part["dur"]
            for each in sorted(self.device, key=lambda each: each["ts"]):
                until = min(each["ts"] + each["dur"], end)
                if until > max(each["ts"], at):
                    shared += until - max(each["ts"], at)
                    at = until
        return shared / 1e6 / self.seconds(name)


def test_the_trace_names_the_steps_and_what_the_host_does(config: RunConfig, tmp_path: Path, capsys: Any):
    train(config, tmp_path / "run", quiet=True, profile=4)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("profile")]
    place = tmp_path / "run" / "profile"
    assert said == [
        f"profile: steps 3 to 6 in {place}; view it with tensorboard --logdir {place} (pip install tensorboard xprof), "
        "or open its .trace.json.gz in https://ui.perfetto.dev"
    ]
    trace = Trace(tmp_path / "run")
    assert trace.steps == [3, 4, 5, 6] and trace.device
    assert trace.in_step("batch") == trace.in_step("put") == [3, 4, 5, 6]
    assert trace.in_step("wait") == [3, 3, 4, 4, 5, 5, 6, 6]  # for the step before, and because it is read
    assert trace.in_step("save") == trace.in_step("score") == [4]

    train(config, tmp_path / "other", quiet=True)
    assert small.metrics(tmp_path / "run") == small.metrics(tmp_path / "other")
    assert read_run(tmp_path / "run") == read_run(tmp_path / "other") and not (tmp_path / "other" / "profile").exists()


@pytest.fixture(scope="module")
def wider(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A model whose step takes a while."""
    sizes = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4}
    model = small.write_model(tmp_path_factory.mktemp("wider") / "model", **sizes)
    return replace(config, model=str(model), batch=16, eval_every=100, save_every=100)


@pytest.mark.slow  # it depends on what else the machine does
def test_making_batches_is_little_of_a_step(wider: RunConfig, tmp_path: Path):
    """The host spends its time waiting."""
    train(wider, tmp_path / "run", quiet=True, profile=6)
    trace = Trace(tmp_path / "run")
    whole, batches, waiting = trace.seconds("train"), trace.seconds("batch", "put"), trace.seconds("wait")
    shares = f"of {whole:.4f} s batches take {batches:.4f} and waiting {waiting:.4f}"
    assert batches < 0.25 * whole and waiting > 0.5 * whole, shares
    print(shares)  # pytest -rP


@pytest.mark.slow  # as well
def test_batches_are_made_while_the_devices_compute(wider: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Also if the metrics of every step are read; here reading takes long."""
    made = Plan.batches

    def batches(self: Plan, start: int, pad: int) -> Iterator[Any]:
        for batch in made(self, start, pad):
            time.sleep(0.02)
            yield batch

    monkeypatch.setattr(Plan, "batches", batches)
    train(wider, tmp_path / "run", quiet=True, profile=8)
    trace = Trace(tmp_path / "run")
    found = trace.named("batch")
    assert len(found) == 8 and all(each["dur"] > 19e3 for each in found)
    assert trace.computing("batch") > 0.5


@pytest.mark.parametrize(
    ("wanted", "start", "last", "traced"),
    [(3, 0, 12, (3, 5)), (3, 4, 12, (7, 9)), (3, 0, 4, (2, 4)), (9, 0, 4, (1, 4)), (3, 10, 12, (11, 12))],
)
def test_which_steps_are_traced(wanted: int, start: int, last: int, traced: tuple[int, int]):
    """From the third step of the command, or the last steps of a short run, or all of them."""
    profile = Profile(wanted, Path(), start, last)
    assert (profile.first, profile.last) == traced


@pytest.mark.slow
def test_a_run_that_ends_within_leaves_its_trace(config: RunConfig, tmp_path: Path, capsys: Any):
    """Ended by a signal, resumed and ended by an error, resumed to the end: no trace is lost."""
    run, stop, written = tmp_path / "run", StopRequest(), MetricsLogger.write

    def write(self: MetricsLogger, row: dict) -> None:
        written(self, row)
        stop.asked = signal.SIGTERM if row["step"] == 4 else None
        if row["step"] == 8:
            raise small.Stopped

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MetricsLogger, "write", write)
        with pytest.raises(Stopped):
            train(config, run, quiet=True, stop=stop, profile=8)
        first = traces(run)[0]
        content = first.read_bytes()
        assert Trace(run).steps == [3, 4, 5] and "profile: steps 3 to 5 in" in capsys.readouterr().out
        time.sleep(1)  # folders are named after the second
        with pytest.raises(small.Stopped):
            train(config, run, quiet=True, stop=StopRequest(), profile=8)
    assert "profile: steps 6 to 8 in" in capsys.readouterr().out
    assert len(traces(run)) == 2 and first.read_bytes() == content

    train(config, run, quiet=True)
    train(config, run, quiet=True, profile=8)
    assert f"profile: nothing is traced: the run ended before step {STEPS + 1}" in capsys.readouterr().out
    assert len(traces(run)) == 2


def test_the_main_process_writes_the_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    monkeypatch.setattr(processes, "is_main_process", lambda: False)
    profile = Profile(1, tmp_path, 0, 5)
    for step in range(1, 6):
        profile.begin(step)
        profile.end([])
    profile.close()
    assert not list(tmp_path.iterdir()) and capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--profile", "0"], "--profile is 0; expected 1 or more steps, such as 5"),
        (["--profile", "-3"], "--profile is -3; expected 1 or more steps, such as 5"),
        (
            ["--profile", "2", "--method", "none"],
            "--profile 2 traces training steps, but --method none has no steps; drop it",
        ),
        (["--profile", "2", "--dry-run"], "--profile 2 traces steps, but --dry-run runs none; drop one of them"),
    ],
)
def test_invalid_traces(tmp_path: Path, arguments: list[str], line: str, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    output = ["--output", str(tmp_path / "run"), "--mesh", "1x1"]
    monkeypatch.setattr(sys, "argv", ["train", *output, *arguments])
    with pytest.raises(SystemExit) as ended:
        terminal.run(main)
    assert (ended.value.code, capsys.readouterr().err) == (2, f"error: {line}\n")
    assert not (tmp_path / "run").exists()


def test_a_file_of_the_users_stays(config: RunConfig, tmp_path: Path, capsys: Any):
    """A file with the name of the trace directory is refused. A file in it ends the trace, not the run."""
    run, place = tmp_path / "run", tmp_path / "run" / "profile"
    train(replace(config, steps=3), run, quiet=True)
    place.write_text("mine")
    with pytest.raises(InputError) as raised:
        train(replace(config, steps=3), run, quiet=True, profile=2)
    assert str(raised.value).startswith(f"{place} is a file, but --profile needs a directory there")
    assert place.read_text() == "mine"

    place.unlink()
    place.mkdir()
    (place / "plugins").write_text("mine")
    capsys.readouterr()
    train(replace(config, steps=5), run, quiet=True, profile=2)
    error = capsys.readouterr().err
    assert error.startswith(f"profile: {place} cannot be written (") and error.count("\n") == 1
    assert (place / "plugins").read_text() == "mine"
    assert read_run(run)["steps"] == 5 and read_run(run)["finished"]
