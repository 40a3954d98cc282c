"""Evaluation and generation in several processes on 127.0.0.1: the reports are those of one process, byte for byte.

The log-likelihoods of choices are sums that the processes add in another order, so their last digit may differ.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small

from jaxprefix import generate
from jaxprefix.errors import InputError
from jaxprefix.evaluation import __main__ as evaluation
from jaxprefix.io.multihost import LOST
from jaxprefix.models.adapters import PrefixTuning
from jaxprefix.train.loop import train

FILES = ("report.json", "statistics.json", "report.md")
Given = tuple[Path, Path, Path]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    """A trained run, questions with generated answers, and questions with choices."""
    folder = tmp_path_factory.mktemp("given")
    rows = small.rows(8) + small.rows(7, language="de")
    answers = small.write_rows(folder / "answers.jsonl", rows)
    choices = small.write_rows(folder / "choices.jsonl", [row | {"choices": list(small.COLOURS)} for row in rows])
    model, prefix = small.write_model(folder / "model", scale=5), PrefixTuning(length=3)
    train(
        small.configuration(model, answers, held_out=1, steps=2, method="prefix", prefix=prefix),
        folder / "run",
        quiet=True,
    )
    return folder / "run", answers, choices


def command(run: Path, file: Path, output: Path, mesh: str) -> list[str]:
    flags = ["--eval-file", str(file), "--output", str(output), "--mesh", mesh, "--platform", "cpu", "--batch", "4"]
    return ["-m", "jaxprefix.evaluation", str(run), "--quiet", *flags]


def alone(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def assert_same(folder: Path, other: Path) -> None:
    assert {name: (folder / name).read_bytes() for name in FILES} == {
        name: (other / name).read_bytes() for name in FILES
    }
    rows, expected = read(folder), read(other)
    sums = [row.pop("logprobs", []) for row in rows], [row.pop("logprobs", []) for row in expected]
    np.testing.assert_allclose(*sums, rtol=0, atol=1.1e-5)
    assert rows == expected


def read(folder: Path) -> list[dict[str, Any]]:
    """All rows of predictions.jsonl, in the order of the file."""
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize(("mesh", "counts"), [("4x1", (2, 4)), ("2x2", (2,))])
def test_the_files_are_those_of_one_process(given: Given, tmp_path: Path, mesh: str, counts: tuple[int, ...]):
    run, *files = given
    for file in files:
        whole = alone(command(run, file, tmp_path / file.stem, mesh))
        for count in counts:
            output = tmp_path / f"{file.stem}-{count}"
            done = small.together(command(run, file, output, mesh), count)
            assert [each.returncode for each in done] == [0] * count, done
            assert_same(output, tmp_path / file.stem)
            text = whole.stdout.replace(str(tmp_path / file.stem), str(output))
            assert all(line in done[0].stdout for line in text.splitlines()[-1].split(" · "))
            assert "report" not in "".join(each.stdout for each in done[1:])


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_one_that_dies_ends_both_and_the_same_command_resumes(given: Given, tmp_path: Path, victim: int):
    run, answers, _ = given
    arguments = command(run, answers, tmp_path / "killed", "2x1")
    alone(command(run, answers, tmp_path / "whole", "2x1"))
    running = small.popen(small.with_hosts(arguments, 2))
    written = tmp_path / "killed" / "predictions.jsonl"
    while not written.is_file() or not written.read_bytes():
        assert all(process.poll() is None for process in running)
        time.sleep(0.005)
    running[victim].kill()
    done = small.results(running)
    assert all(each.returncode for each in done)
    assert [each.stderr.splitlines()[1:] for each in done] == [[LOST], [LOST]]
    assert not (tmp_path / "killed" / "report.json").exists()
    assert [each.returncode for each in small.together(arguments, 2)] == [0, 0]
    assert_same(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.slow
def test_a_mistake_in_one_process_ends_both(given: Given, tmp_path: Path):
    """Its own message is printed once. The other process waits for it in a collective."""
    run, answers, _ = given
    one, other = (command(run, file, tmp_path / "out", "2x1") for file in (answers, tmp_path / "no.jsonl"))
    first, second = small.with_hosts(one, 2)
    done = small.results(small.popen([first, [*other, *second[-2:]]]))
    assert done[0].stderr.splitlines()[1:] == [LOST] and done[0].returncode
    assert "no.jsonl" in done[1].stderr.splitlines()[-1] and done[1].returncode == 2


@pytest.mark.slow
def test_different_commands_end_both(given: Given, tmp_path: Path):
    first, second = small.with_hosts(command(*given[:2], tmp_path / "out", "2x1"), 2)
    done = small.results(small.popen([first, [*second, "--limit", "2"]]))
    line = "error: the questions, settings or earlier answers differ between the processes; "
    assert [each.returncode for each in done] == [2, 2]
    assert all(each.stderr.splitlines()[-1].startswith(line) for each in done)


@pytest.mark.slow
def test_answers_to_prompts(given: Given, tmp_path: Path):
    """In a file, and as a stream. The main process alone prints."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("".join(f"{row['prompt']}\n" for row in small.rows(6)))
    base = ["-m", "jaxprefix.generate", str(given[0]), "--platform", "cpu", "--mesh", "2x2", "--max-new-tokens", "9"]
    for more in (["--file", str(prompts), "--stop", "e"], ["What colour is the boat?", "--temperature", "1"]):
        whole = alone([*base, *more]).stdout
        done = small.together([*base, *more], 2)
        assert [each.returncode for each in done] == [0, 0], done
        assert whole.strip() and whole in done[0].stdout
        assert [line for line in done[1].stdout.splitlines() if "rank" not in line.lower()] == []


@pytest.mark.parametrize("hosts", ["somewhere", "10.0.0.1:8476,2/2"])
def test_invalid_hosts(hosts: str, monkeypatch: pytest.MonkeyPatch):
    expected = f"--hosts '{hosts}' is neither auto nor ADDRESS:PORT,PROCESS/PROCESSES such as 10.0.0.1:8476,0/4"
    for main, arguments in ((evaluation.main, ()), (generate.main, ("Who?",))):
        monkeypatch.setattr(sys, "argv", ["command", "run", *arguments, "--hosts", hosts])
        with pytest.raises(InputError) as raised:
            main()
        assert str(raised.value) == expected


def test_prompts_cannot_be_typed_to_several_processes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["generate", "run", "--hosts", "127.0.0.1:8476,0/2"])
    with pytest.raises(InputError, match="needs PROMPT or --file, because only one process has standard input"):
        generate.main()
