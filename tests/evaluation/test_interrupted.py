"""An interrupted evaluation resumes and ends as an uninterrupted one. Answers of other runs or settings are never mixed
in.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import small

from jaxprefix.errors import InputError
from jaxprefix.evaluation import answering
from jaxprefix.evaluation.evaluate import Evaluation, evaluate
from jaxprefix.evaluation.predictions import Predictions
from jaxprefix.inference import batching
from jaxprefix.models.adapters import PrefixTuning
from jaxprefix.runs.directory import read_run
from jaxprefix.train.loop import train

pytestmark = pytest.mark.usefixtures("no_pictures")


class Killed(BaseException):
    """An exception that no code catches."""


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
    """The files in the run's directory afterwards."""
    evaluate(run, Evaluation(**({"batch": 2, "mesh": "1x1"} | settings)), quiet=True)
    place = settings.get("output", run)
    return {name: (place / name).read_bytes() for name in ("predictions.jsonl", "report.json")}


def interrupted(run: Path, after: int, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
    """Stops after answers were written `after` times; the last line is written only in part."""
    with monkeypatch.context() as patch:
        done, whole = 0, Predictions.append

        def append(self: Predictions, rows: Any) -> None:
            nonlocal done
            done += bool(rows)
            whole(self, rows)
            if done == after:
                self.path.write_bytes(self.path.read_bytes()[:-20])
                raise Killed

        patch.setattr(Predictions, "append", append)
        with pytest.raises(Killed):
            evaluated(run, **settings)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[tuple]]:
    """Records the batches of each later evaluation: the keys in each batch, and its padded shape."""
    found = []

    def predict(model: Any, task: Any, rows: Any, size: int, sampling: Any, parts: Any) -> Any:
        found.append([(tuple(rows[at].key for at in part.indices), replace(part, indices=())) for part in parts])
        return whole(model, task, rows, size, sampling, parts)

    whole = answering.predict
    monkeypatch.setattr(answering, "predict", predict)
    return found


@pytest.mark.parametrize(
    ("file", "sampling"),
    [
        pytest.param("answers.jsonl", {}, id="generated", marks=pytest.mark.slow),
        pytest.param("answers.jsonl", {"temperature": 1.0, "top_p": 0.9}, id="drawn", marks=pytest.mark.slow),
        pytest.param("colours.jsonl", {}, id="chosen"),
    ],
)
def test_the_end_is_that_of_an_uninterrupted_evaluation(
    folder: Path, run: Path, tmp_path: Path, file: str, sampling: dict, asked: list, monkeypatch: pytest.MonkeyPatch
):
    """After a smaller evaluation and three interruptions, the file is the same, byte by byte. Questions that are
    answered again have the same batches, and a batch with all its answers is not computed again.
    """
    monkeypatch.setattr(batching, "BATCHES_PER_BUCKET", 2)
    settings = {"eval_file": folder / file} | sampling
    smaller = evaluated(run, **settings, limit=2)["predictions.jsonl"]
    whole = evaluated(shutil.copytree(run, tmp_path / "other"), **settings)
    planned = asked[-1]
    asked.clear()
    for after in (1, 3, 2):
        interrupted(run, after, monkeypatch, **settings)
        assert (run / "predictions.jsonl").read_bytes().startswith(smaller)
    assert evaluated(run, **settings) == whole
    assert len(asked) == 4 and all(set(parts) <= set(planned) for parts in asked)
    counts = list(map(len, asked))
    assert counts[0] == len(planned) and counts == sorted(counts, reverse=True) and counts[-1] < counts[0]
    assert sum(len(keys) for keys, _ in planned) == 13 - 4


def test_an_answer_is_never_replaced(folder: Path, run: Path, asked: list, monkeypatch: pytest.MonkeyPatch):
    """Neither when its batch is computed again, nor by an evaluation with other batches."""
    file = folder / "colours.jsonl"
    interrupted(run, 1, monkeypatch, eval_file=file)
    first, _ = (run / "predictions.jsonl").read_text().splitlines()  # half a line of the other evaluation
    mine = json.loads(first) | {"prediction": "mine"}
    (run / "predictions.jsonl").write_text(json.dumps(mine) + "\n")
    evaluated(run, eval_file=file)
    assert any(mine["key"] in keys for keys, _ in asked[-1])
    evaluated(run, eval_file=file, batch=4)
    lines = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    assert len(lines) == 13 and lines[0] == mine and len(asked) == 2


def test_another_evaluation_keeps_what_an_interrupted_one_answered(
    folder: Path, run: Path, asked: list, monkeypatch: pytest.MonkeyPatch
):
    """German alone, after all languages were interrupted: only the missing answers are computed, and then the rest of
    English.
    """
    file = folder / "colours.jsonl"
    interrupted(run, 4, monkeypatch, eval_file=file)
    *kept, _ = (run / "predictions.jsonl").read_text().splitlines()
    german = sum(json.loads(line)["language"] == "de" for line in kept)
    asked.clear()
    evaluated(run, eval_file=file, languages="de")
    assert 0 < german < 6 and sum(len(keys) for keys, _ in asked[-1]) == 6 - german
    assert len(small.predictions(run)) == len(kept) + 6 - german < 13
    evaluated(run, eval_file=file)
    assert (run / "predictions.jsonl").read_text().splitlines()[: len(kept)] == kept
    assert len(small.predictions(run)) == 13


def test_answers_of_another_run_are_refused(folder: Path, run: Path, tmp_path: Path):
    """They are neither mixed with those of this run nor lost."""
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
    """Sampled answers do not replace greedy ones; they need another directory."""
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
    (tmp_path / "whole" / "predictions.jsonl").unlink()  # training on the embedded default has answered some already
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    assert evaluation("whole").wait() == 0
    file, answered, draw = tmp_path / "killed" / "predictions.jsonl", [], random.Random(0)

    def lines() -> int:
        return file.read_bytes().count(b"\n") if file.is_file() else 0

    for kill in range(10):
        process, start = evaluation("killed"), time.monotonic()
        if kill % 5:  # when this many answers are written
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
    print(f"\n10 kills, at so many answers: {answered}")
