"""An interrupted evaluation goes on and ends as an uninterrupted one, and answers of something else are never mixed."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import small

from jaxprefix.errors import InputError
from jaxprefix.evaluation import answering, predictions
from jaxprefix.evaluation.evaluate import Evaluation, evaluate
from jaxprefix.inference import batching
from jaxprefix.models.adapters import PrefixTuning
from jaxprefix.runs.directory import read_run
from jaxprefix.train.loop import train

pytestmark = pytest.mark.usefixtures("no_pictures")


class Killed(BaseException):
    """What no one catches."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("going-on")
    small.write_model(folder / "model", scale=10)
    two = small.rows(7) + small.rows(6, language="de")
    small.write_rows(folder / "answers.jsonl", two)
    small.write_rows(folder / "colours.jsonl", [row | {"choices": list(small.COLOURS)} for row in two])
    settings = small.configuration(
        folder / "model", folder / "answers.jsonl", method="prefix", prefix=PrefixTuning(length=3), steps=2, lr=0.1
    )
    train(settings, folder / "trained", quiet=True)
    return folder


@pytest.fixture
def run(folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(folder / "trained", tmp_path / "run")


def evaluated(run: Path, **settings: Any) -> dict[str, bytes]:
    """What stands in the run's directory afterwards."""
    evaluate(run, Evaluation(**({"batch": 2, "mesh": "1x1"} | settings)), quiet=True)
    place = settings.get("output", run)
    return {name: (place / name).read_bytes() for name in ("predictions.jsonl", "report.json")}


def interrupted(run: Path, after: int, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
    """Stops when `after` times answers were written; the last time only half of a line."""
    with monkeypatch.context() as patch:
        done = 0

        def append(directory: Path, rows: Any) -> None:
            nonlocal done
            done += 1
            predictions.__dict__["append_whole"](directory, rows)
            if done == after:
                path = directory / predictions.UNFINISHED
                path.write_bytes(path.read_bytes()[:-20])
                raise Killed

        patch.setitem(predictions.__dict__, "append_whole", predictions.append)
        patch.setattr(predictions, "append", append)
        with pytest.raises(Killed):
            evaluated(run, **settings)


@pytest.mark.parametrize(
    ("file", "sampling"),
    [
        pytest.param("answers.jsonl", {}, id="generated", marks=pytest.mark.slow),
        pytest.param("answers.jsonl", {"temperature": 1.0, "top_p": 0.9}, id="drawn"),
        pytest.param("colours.jsonl", {}, id="chosen"),
    ],
)
def test_the_end_is_that_of_an_uninterrupted_evaluation(
    folder: Path, run: Path, tmp_path: Path, file: str, sampling: dict, monkeypatch: pytest.MonkeyPatch
):
    """Stopped three times on its way; what was answered whole before is not asked again."""
    monkeypatch.setattr(batching, "GENERATED_TOGETHER", 2)
    whole = evaluated(shutil.copytree(folder / "trained", tmp_path / "other"), eval_file=folder / file, **sampling)
    parts = []

    def counted(*arguments: Any) -> Any:
        parts.append(len(arguments[-1]))
        return predict(*arguments)

    predict = answering.predict
    monkeypatch.setattr(answering, "predict", counted)
    for after in (1, 3, 2):
        interrupted(run, after, monkeypatch, eval_file=folder / file, **sampling)
        assert (run / predictions.UNFINISHED).is_file() and not (run / "predictions.jsonl").is_file()
    assert evaluated(run, eval_file=folder / file, **sampling) == whole
    assert not (run / predictions.UNFINISHED).exists()
    assert parts == sorted(parts, reverse=True) and parts[-1] < parts[0]


@pytest.mark.slow
def test_another_evaluation_keeps_what_an_interrupted_one_answered(
    folder: Path, run: Path, monkeypatch: pytest.MonkeyPatch
):
    """German alone, after all languages were interrupted: the English answers stay, and are not asked later."""
    file, asked = folder / "colours.jsonl", []
    interrupted(run, 4, monkeypatch, eval_file=file)
    kept = len((run / predictions.UNFINISHED).read_bytes().splitlines()) - 2  # the plan, and half a line
    predict = answering.predict

    def counted(*arguments: Any) -> Any:
        asked.append(len(arguments[2]))
        return predict(*arguments)

    monkeypatch.setattr(answering, "predict", counted)
    evaluated(run, eval_file=file, languages="de")
    rows = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    evaluated(run, eval_file=file)
    assert sum(asked) == 13 - kept and len(rows) == kept + asked[0]


def test_answers_of_another_run_are_refused(folder: Path, run: Path, tmp_path: Path):
    """They are neither mixed with this run's nor lost."""
    file = folder / "colours.jsonl"
    evaluated(run, eval_file=file)
    other = shutil.copytree(folder / "trained", tmp_path / "other")
    described = read_run(other)
    described["config"]["seed"] = 5
    (other / "run.json").write_text(json.dumps(described))
    shutil.copy(run / "predictions.jsonl", other)
    before = (other / "predictions.jsonl").read_bytes()
    with pytest.raises(InputError, match=r"other/predictions.jsonl holds answers of another run; move it away"):
        evaluated(other, eval_file=file)
    assert (other / "predictions.jsonl").read_bytes() == before


def test_answers_of_another_kind_are_refused(folder: Path, run: Path, tmp_path: Path):
    """Drawn answers do not replace greedy ones: they go to a directory of their own."""
    file = folder / "answers.jsonl"
    greedy = evaluated(run, eval_file=file)
    with pytest.raises(InputError, match=r"at most 96 tokens, greedy, now .*temperature 1, .*give a new --output"):
        evaluated(run, eval_file=file, temperature=1.0)
    with pytest.raises(InputError, match=r"at most 96 tokens, greedy, now at most 64 tokens, greedy; give a new"):
        evaluated(run, eval_file=file, max_length=64)
    drawn = evaluated(run, eval_file=file, temperature=1.0, output=tmp_path / "drawn")
    assert drawn != greedy and evaluated(run, eval_file=file) == greedy


def test_a_damaged_line_is_named(folder: Path, run: Path):
    file = folder / "colours.jsonl"
    evaluated(run, eval_file=file)
    lines = (run / "predictions.jsonl").read_text().splitlines()
    unscored = json.dumps(json.loads(lines[1]) | {"scores": {"accuracy": "high", "accuracy_norm": 0}})
    for wrong in (lines[1][:50], "[]", "{}", unscored):
        (run / "predictions.jsonl").write_text("\n".join([lines[0], wrong, *lines[2:]]) + "\n")
        with pytest.raises(InputError, match=r"predictions.jsonl:2: .*; restore the file, or move it away"):
            evaluated(run, eval_file=file)


@pytest.mark.slow
def test_ten_kills_change_nothing(tmp_path: Path):
    """The command itself, on the embedded default, killed (SIGKILL) ten times at random moments."""

    def command(*arguments: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", *arguments], cwd=tmp_path, stdout=subprocess.DEVNULL, env=os.environ
        )

    def evaluation(run: str) -> subprocess.Popen:
        return command("jaxprefix.evaluation", run, "--batch", "4", "--limit", "60", "--quiet")

    assert command("jaxprefix.train", "--steps", "3", "--output", "whole", "--quiet").wait() == 0
    (tmp_path / "whole" / "predictions.jsonl").unlink()  # training on the embedded default has asked some already
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    assert evaluation("whole").wait() == 0
    unfinished, answered, draw = tmp_path / "killed" / predictions.UNFINISHED, [], random.Random(0)

    def lines() -> int:
        return unfinished.read_bytes().count(b"\n") if unfinished.is_file() else 0

    for kill in range(10):
        process, start = evaluation("killed"), time.monotonic()
        if kill % 5:  # when so many answers are there
            aim = 1 + draw.randrange(40 * kill)
            while lines() < aim and process.poll() is None:
                time.sleep(0.005)
        else:  # while it opens
            time.sleep(draw.uniform(0.5, 3))
        assert process.poll() is None, f"ended by itself after {time.monotonic() - start:.0f} s"
        process.send_signal(signal.SIGKILL)
        process.wait()
        answered.append(lines())
    assert evaluation("killed").wait() == 0
    assert len(set(answered)) > 5
    for name in ("predictions.jsonl", "report.json", "report.md"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    print(f"\n10 kills, with so many lines in unfinished.jsonl: {answered}")
