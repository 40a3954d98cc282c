"""SIGTERM and Ctrl-C: a run saves and ends after a step, or at once if nothing is lost or at a second signal."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small

from jaxprefix.io.terminal import Stopped
from jaxprefix.runs.checkpoint import Checkpoints
from jaxprefix.runs.config import RunConfig
from jaxprefix.runs.saved import load_run
from jaxprefix.train.loop import train
from jaxprefix.train.metrics import MetricsLogger
from jaxprefix.train.signals import StopRequest, stoppable


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    folder = tmp_path_factory.mktemp("data")
    rows = small.write_rows(folder / "rows.jsonl", small.rows(24, longest=1))
    model = small.write_model(folder / "model", scale=5)
    config = small.configuration(model, rows, method="lora", steps=12, save_every=100, eval_every=100)
    return replace(config, lora=replace(config.lora, dropout=0.2))


@pytest.mark.parametrize("log_every", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_a_stop_request_ends_the_run_at_the_step_and_it_resumes(
    config: RunConfig, tmp_path: Path, log_every: int, monkeypatch: pytest.MonkeyPatch
):
    """The resumed run ends as an uninterrupted one, bit for bit."""
    config = replace(config, log_every=log_every)
    train(config, tmp_path / "whole", quiet=True)
    stop, written = StopRequest(), MetricsLogger.write

    def write(self: MetricsLogger, row: dict) -> None:
        written(self, row)
        if row["step"] == 5:
            stop.asked = signal.SIGTERM

    with monkeypatch.context() as patch, pytest.raises(Stopped) as ended:
        patch.setattr(MetricsLogger, "write", write)
        train(config, tmp_path / "run", quiet=True, stop=stop)
    assert str(ended.value) == "stopped by SIGTERM at step 6 of 12; it is saved: repeat the command to resume"
    assert ended.value.code == 143 and Checkpoints(tmp_path / "run").steps == [6]
    train(config, tmp_path / "run", quiet=True)
    assert small.metrics(tmp_path / "run") == small.metrics(tmp_path / "whole")
    one, other = load_run(tmp_path / "run").params, load_run(tmp_path / "whole").params
    for name in one:
        np.testing.assert_array_equal(one[name]["a"], other[name]["a"])
        np.testing.assert_array_equal(one[name]["b"], other[name]["b"])


@contextmanager
def started(arguments: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A process that is killed in any case when the test ends."""
    with subprocess.Popen(arguments, stdin=-1, stdout=-1, stderr=-1, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def command(config: RunConfig, output: Path) -> Iterator[subprocess.Popen[str]]:
    """The command, on a run of hours."""
    arguments = [sys.executable, "-m", "jaxprefix.train", "--output", str(output), "--platform", "cpu"]
    for name in ("model", "train_file", "method", "batch", "max_length", "mesh", "held_out", "lr", "save_every"):
        arguments += [f"--{name.replace('_', '-')}", str(getattr(config, name))]
    arguments += ["--steps", "1000000", "--log-every", "1"]
    with started(arguments) as process:
        yield process


def wait_for_a_step(path: Path, process: subprocess.Popen[str]) -> None:
    """A limit far above the usual duration, after which the process is killed."""
    deadline = time.monotonic() + 600
    while not path.exists() or '"loss"' not in path.read_text():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_the_command_saves_and_says_so(config: RunConfig, tmp_path: Path, number: signal.Signals, code: int):
    with command(replace(config, save_every=10**6), tmp_path / "run") as process:
        wait_for_a_step(tmp_path / "run" / "metrics.jsonl", process)
        process.send_signal(number)
        _, error = process.communicate(timeout=300)
    assert process.returncode == code, error
    first, last = error.splitlines()
    assert first == f"{number.name}: saving at the end of this step; Ctrl-C stops at once"
    (step,) = Checkpoints(tmp_path / "run").steps
    assert last == f"stopped by {number.name} at step {step} of 1000000; it is saved: repeat the command to resume"
    assert small.metrics(tmp_path / "run")[-1]["step"] == step and load_run(tmp_path / "run").step == step


SCRIPT = """
import hashlib, sys
from jaxprefix.train.signals import stoppable
with stoppable() as stop:
    stop.working = sys.argv[1] == "working"
    print("ready", flush=True)
    while not (stop.asked and sys.argv[2] == "obeys"):  # as a compiler does, it holds the main thread for long
        hashlib.pbkdf2_hmac("sha256", b"a", b"b", 100_000 if sys.argv[2] == "obeys" else 1_000_000_000)
    sys.stdin.readline()  # until all signals are sent
print("saved")
"""


@pytest.mark.parametrize(
    ("state", "obeys", "sent", "code", "said"),
    [
        ("idle", "never", [signal.SIGTERM], 143, "stopped by SIGTERM before the first step; repeat the command"),
        ("idle", "never", [signal.SIGINT], 130, "stopped by SIGINT before the first step; repeat the command"),
        ("working", "never", [signal.SIGINT, signal.SIGINT], 130, "stopped at once; repeat the command to resume"),
        ("working", "never", [signal.SIGTERM, signal.SIGINT], 130, "stopped at once; repeat the command to resume"),
        ("working", "obeys", [signal.SIGTERM, signal.SIGTERM], 0, ""),
    ],
)
def test_a_busy_main_thread_does_not_delay_it(state: str, obeys: str, sent: list[signal.Signals], code: int, said: str):
    with started([sys.executable, "-c", SCRIPT, state, obeys]) as process:
        assert process.stdout and process.stderr and process.stdout.readline() == "ready\n"
        process.send_signal(sent[0])
        if sent[1:]:
            assert process.stderr.readline().startswith(f"{sent[0].name}: saving at the end of this step")
            process.send_signal(sent[1])
        if code == 0:
            assert process.stdin
            process.stdin.write("\n")
            process.stdin.flush()
        assert process.wait(timeout=300) == code
        output, error = process.stdout.read(), process.stderr.read()
    assert error.splitlines()[-1].startswith(said) if said else not error, error
    assert output == ("saved\n" if code == 0 else "")


def test_the_signal_handlers_are_restored():
    """The handlers and the wakeup pipe of the caller are restored; an ignored signal stays ignored."""
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    threads = threading.active_count()
    old = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with stoppable() as stop:
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGINT) is not before[1]
            stop.working = True
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
            deadline = time.monotonic() + 60
            while not stop.asked and time.monotonic() < deadline:
                time.sleep(0.01)
            assert stop.asked == signal.SIGINT
    finally:
        signal.signal(signal.SIGTERM, old)
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == before
    assert threading.active_count() == threads and signal.set_wakeup_fd(-1) == -1
