"""Every command of the README runs as typed, in one directory and in its order; so does its Python."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jaxprefix.base import EMBEDDED

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [
    line.split("#")[0].strip()
    for kind, block in BLOCKS
    if kind == "sh"
    for line in block.splitlines()
    if line.startswith("python ")
]


def mirror(directory: Path) -> None:
    """Invented rows where the README's commands look for benchmarks."""

    def write(name: str, rows: list[dict]) -> None:
        path = directory / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    answer = {"text": ["in the garden"], "answer_start": [8]}
    passage = {"title": "", "context": "Anna is in the garden.", "question": "Where is Anna?", "answers": answer}
    pair = {"premise": "Anna sleeps.", "hypothesis": "Anna is awake.", "label": 2}
    write("rajpurkar/squad/plain_text/train", [{"id": str(row)} | passage for row in range(40)])
    write("nyu-mll/multi_nli/default/train", [pair for _ in range(40)])
    for language in ("de", "hi", "zh"):
        write(f"google/xquad/xquad.{language}/validation", [{"id": str(row)} | passage for row in range(4)])
        write(f"facebook/xnli/{language}/test", [pair for _ in range(4)])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that has what the README assumes: a model under the hub's name, a mirror, and mine.jsonl."""
    directory = tmp_path_factory.mktemp("readme")
    shutil.copytree(EMBEDDED, directory / "meta-llama" / "Llama-3.2-1B")
    mirror(directory / "mirror")
    (directory / "mine.jsonl").write_text(next(block for kind, block in BLOCKS if kind == "json"), encoding="utf-8")
    return directory


def run(arguments: list[str], place: Path) -> subprocess.CompletedProcess[str]:
    """Python with these; what trains to its end, and not for 20 steps, has programs that are worth optimising."""
    is_long = "jaxprefix.train" in arguments and not {"--steps", "--dry-run"} & set(arguments)
    environment = {name: value for name, value in os.environ.items() if not is_long or name != "XLA_FLAGS"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=600)


def test_commands_are_found():
    assert len(COMMANDS) >= 10
    assert any("--mesh 4x2" in command for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_command(command: str, place: Path):
    done = run(shlex.split(command)[1:], place)
    assert done.returncode == 0, done.stderr
    output = re.search(r"--output (\S+)", command)
    if output:
        made = place / output[1]
        assert (
            made.is_file() or (made / ("run.json" if "jaxprefix.train" in command else "predictions.jsonl")).is_file()
        )
    if evaluated := re.search(r"jaxprefix.evaluation (runs/\S+)", command):
        places = [output[1]] if output else evaluated[1].split(",")
        assert all((place / run / "report.png").is_file() for run in places)


def test_python(place: Path):
    """Each block as a script of its own: a notebook's first cells, and the commands as functions."""
    printed = []
    for code in (block for kind, block in BLOCKS if kind == "python"):
        done = run(["-c", code], place)
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout.splitlines())
    notebook, functions = printed
    assert notebook[0] in README  # what is learnt
    assert notebook[-2] == "in the kitchen" and notebook[-1].startswith(("in the", "at the"))
    assert 0 <= float(functions[-1]) <= 1
