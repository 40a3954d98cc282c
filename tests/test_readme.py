"""Every command of the README and of the pages under docs/ runs as typed, in one directory and in their order.

`make test` runs one command of each kind. The runs that it needs are trained in this process, for two steps.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import tyro

from jaxprefix.runs.base_model import EMBEDDED
from jaxprefix.runs.config import RunConfig
from jaxprefix.train.__main__ import Command as TrainCommand
from jaxprefix.train.loop import train

ROOT = Path(__file__).parents[1]
NAMES = "first_model own_rows methods evaluation probes runs study python serving exchange".split()
FILES = ("README.md", *(f"docs/{name}.md" for name in NAMES), "CONTRIBUTING.md")
PAGES = "".join((ROOT / file).read_text(encoding="utf-8") for file in FILES)


def blocks(page: str) -> list[tuple[str, str]]:
    """The kinds of a page's blocks of code, and what is in them."""
    return re.findall(r"```(\w+)\n(.*?)```", page, flags=re.DOTALL)


BLOCKS = blocks(PAGES)
LINES = [line for kind, block in BLOCKS if kind == "sh" for line in block.splitlines()]
# A command may be on two pages.
COMMANDS = list(dict.fromkeys(line.split("#")[0].strip() for line in LINES if line.startswith("python ")))
# In the order of the pages, by how they begin.
FEW = [
    "train --output runs/first",
    'generate runs/first "Anna',
    "train --dry-run",
    "evaluation runs/seed1,runs/seed2",
    "evaluation beside runs/seed1",
    "evaluation compare",
    "evaluation seeds",
    "probe runs/lora,runs/full",
    "peft export runs/lora exported/lora",
    "peft import",
    "lm_eval run --tasks jaxprefix_xquad_de --model",
    "study babel --list",
    "babel pretrain",
]
SHORT = ["--steps", "2", "--limit", "64", "--held-out", "8"]
DEFAULTS = TrainCommand(RunConfig())
NEEDED = [f"runs/{name}" for name in ("lora", "full", "seed1", "seed2")]  # by the few commands
FEW_QUESTIONS = ["--limit", "2"]
FEW_SENTENCES = ["--limit", "10"]
DEFAULT = ["--task", "babel-qa"]  # where it is said, the training does not end with an evaluation in all languages


def mirror(directory: Path) -> None:
    """Invented rows where the commands look for benchmarks."""

    def write(name: str, rows: list[dict]) -> None:
        path = directory / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    answer = {"text": ["in the garden"], "answer_start": [8]}
    passage = {"title": "", "context": "Anna is in the garden.", "question": "Where is Anna?", "answers": answer}
    pair = {"premise": "Anna sleeps.", "hypothesis": "Anna is awake.", "label": 2}
    write("rajpurkar/squad/plain_text/train", [{"id": str(row)} | passage for row in range(40)])
    write("nyu-mll/multi_nli/default/train", [pair for _ in range(40)])
    for language in ("en", "de", "hi", "zh"):
        write(f"google/xquad/xquad.{language}/validation", [{"id": str(row)} | passage for row in range(4)])
        write(f"facebook/xnli/{language}/test", [pair for _ in range(4)])


def assumed(directory: Path) -> Path:
    """A directory with what the pages assume: a model (with the positions of the real one), a mirror, mine.jsonl."""
    model = directory / "meta-llama" / "Llama-3.2-1B"
    shutil.copytree(EMBEDDED, model)
    config = json.loads((model / "config.json").read_text(encoding="utf-8")) | {"max_position_embeddings": 2048}
    (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    mirror(directory / "mirror")
    (directory / "mine.jsonl").write_text(next(block for kind, block in BLOCKS if kind == "json"), encoding="utf-8")
    return directory


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return assumed(tmp_path_factory.mktemp("readme"))


@pytest.fixture(scope="module")
def short_place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Also with the runs that the few commands need."""
    place = assumed(tmp_path_factory.mktemp("short"))
    for output in NEEDED:
        (command,) = (command for command in COMMANDS if command.endswith(f"--output {output}"))
        given = tyro.cli(TrainCommand, args=[*shlex.split(command)[3:], *SHORT, "--mesh", "1x1"], default=DEFAULTS)
        train(given.config, place / output, quiet=True)
    return place


def run(arguments: list[str], place: Path) -> subprocess.CompletedProcess[str]:
    """Python with these; what trains to its end, and not for a few steps, has programs that are worth optimising."""
    is_long = "jaxprefix.train" in arguments and not {"--steps", "--dry-run"} & set(arguments)
    environment = {name: value for name, value in os.environ.items() if not is_long or name != "XLA_FLAGS"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)


def assert_runs(command: str, place: Path, more: Sequence[str] = ()) -> None:
    """It succeeds, and has written the files that its options name."""
    done = run([*shlex.split(command)[1:], *more], place)
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


def kind(command: str) -> str:
    """Such as train, train --dry-run or evaluation beside."""
    found = re.match(r"python -m jaxprefix\.(\w+( --dry-run| \w+(?= ))?)", command)
    assert found, command
    return found[1]


def is_one_of_few(command: str) -> bool:
    return command.startswith(tuple(f"python -m jaxprefix.{each}" for each in FEW))


def test_commands_are_found():
    assert len(COMMANDS) >= 10
    assert any("--mesh 4x2" in command for command in COMMANDS)


def test_each_kind_is_among_the_few():
    few = [command for command in COMMANDS if is_one_of_few(command)]
    assert len(few) == len(FEW)
    assert {kind(command) for command in few} == {kind(command) for command in COMMANDS}


@pytest.mark.parametrize("command", list(filter(is_one_of_few, COMMANDS)))
def test_one_of_each_kind(command: str, short_place: Path):
    short = {"train": [*SHORT, *(DEFAULT if "--task" not in command else [])]}
    short |= {"evaluation": FEW_QUESTIONS, "probe": FEW_SENTENCES}
    assert_runs(command, short_place, short.get(kind(command), []))


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_command(command: str, place: Path):
    assert_runs(command, place)


def printed(code: str, place: Path) -> list[str]:
    done = run(["-c", code], place)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


NOTEBOOK, SCORES, FUNCTIONS = (block for kind, block in BLOCKS if kind == "python")


def test_the_first_cells_of_a_notebook(tmp_path: Path):
    lines = printed(NOTEBOOK, tmp_path)
    assert lines[0] in PAGES  # the training rows
    assert lines[-2] == "in the kitchen" and lines[-1].startswith(("in the", "at the"))


@pytest.mark.slow
def test_the_scores_of_a_notebook(tmp_path: Path):
    lines = printed(NOTEBOOK + SCORES, tmp_path)
    assert any("en (source)" in line for line in lines) and lines[-1].startswith("wrote exported/where: PREFIX_TUNING")
    (german,) = (line.split()[1] for line in lines if re.match(r"de +\d", line))
    assert 0 <= float(german) <= 1


@pytest.mark.slow
def test_the_commands_as_functions(tmp_path: Path):
    assert 0 <= float(printed(FUNCTIONS, tmp_path)[-1]) <= 1


@pytest.mark.slow
def test_your_own_loop(tmp_path: Path):
    """Both of the page's steps learn the rows, with the same losses; the adapter answers, and is a run."""
    page = (ROOT / "docs" / "custom_loop.md").read_text(encoding="utf-8")
    lines = printed("\n".join(code for kind, code in blocks(page) if kind == "python"), tmp_path)
    joint, answer, apart = (line for line in lines if not line.startswith("trainable: "))
    assert joint == apart and 0 < float(joint.removeprefix("loss ")) < 0.1
    assert answer == "in the kitchen" and (tmp_path / "runs" / "own" / "run.json").is_file()
