"""The two commands as processes: their help, what they print, and that no torch is imported on the way."""

import importlib
import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import small

from jaxprefix import __main__ as console
from jaxprefix.train import __main__ as train_command

ENVIRONMENT = os.environ | {"HF_HUB_OFFLINE": "1"}
TEMPLATE = "{{ bos_token }}{% for turn in messages %}[{{ turn['role'] }}] {{ turn['content'] }}{% endfor %}"

# torch is installed where tests run, so that an import of it by any library on the way would show.
PROGRAM = """
import json, sys
from importlib.util import find_spec
from jaxprefix.io import hub, terminal
from jaxprefix.evaluation import __main__ as evaluation
from jaxprefix.train import __main__ as train

assert find_spec("torch") and "torch" not in sys.modules
for main, arguments in ((train.main, {train}), (evaluation.main, {evaluation})):
    sys.argv = ["main", *arguments]
    terminal.run(main)
try:
    hub.dataset_rows("rajpurkar/squad", "plain_text", "train", None, None)
except ValueError:
    assert "datasets" in sys.modules
print("torch", "torch" in sys.modules)
"""


def run(*command: str, cwd: Path | None = None) -> subprocess.CompletedProcess:
    done = subprocess.run([sys.executable, *command], cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("train", ["--mesh", "--model", "--method", "--task", "--steps", "--prefix.length", "--lora.rank", "--output"]),
        pytest.param(
            "evaluation",
            ["--task", "--languages", "--eval-file", "--limit", "--baseline", "--mesh"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_help(command: str, flags: list[str]):
    """Every flag that the documentation names, within a second or two of work."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    text = run("-m", f"jaxprefix.{command}", "--help").stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert all(f"{flag} " in text for flag in flags)
    assert after.ru_utime - before.ru_utime < 30


def test_training_and_evaluation_print_what_matters_and_import_no_torch(tmp_path: Path):
    """With a chat template, whose rendering is transformers' own; the mesh is emulated and says so."""
    model = small.write_model(tmp_path / "model")
    settings = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": TEMPLATE}))
    small.write_rows(tmp_path / "mine.jsonl", small.rows(24))
    train = "--model model --train-file mine.jsonl --batch 4 --steps 1 --max-length 96 --mesh 2x2 --chat"
    evaluation = "runs/mine-prefix-1 --eval-file mine.jsonl --limit 2 --batch 4"
    program = PROGRAM.replace("{train}", repr(train.split())).replace("{evaluation}", repr(evaluation.split()))
    done = run("-c", program, cwd=tmp_path)
    lines = done.stdout.splitlines()
    assert lines[-1] == "torch False"
    assert lines[:3] == [
        "mesh 2x2: emulated by 4 CPU devices; this is slower than 1x1, and only for trying and testing",
        "run: runs/mine-prefix-1",
        "trainable: 960 of 61,600 (1.5584%)",
    ]
    assert "data: 22 rows to learn, 2 held out" in lines and "compiled the training step 1 times" in lines
    assert lines.count("run: runs/mine-prefix-1") == 2  # first and last
    assert "evaluate: python -m jaxprefix.evaluation runs/mine-prefix-1 --eval-file mine.jsonl" in lines
    assert re.search(r"en \(source\) +\d+\.\d ", done.stdout)
    assert not done.stderr  # no progress where there is no terminal, and no library's warnings
    found = {path.name for path in (tmp_path / "runs" / "mine-prefix-1").iterdir()}
    assert found == {
        "checkpoints", "metrics.jsonl", "predictions.jsonl", "report.json", "report.md", "report.png", "report.svg",
        "run.json", "statistics.json",
    }  # fmt: skip
    first = small.predictions(tmp_path / "runs" / "mine-prefix-1")[0]
    assert re.match(r"\d: The", first["prompt"])  # the prompt as it was given, not as the template renders it


ROOT = Path(console.__file__).parent


def test_the_console_command_knows_every_command():
    """But for that which makes the embedded model again."""
    mains = {path.parent.name for path in ROOT.glob("*/__main__.py")} | {"generate"}
    assert {module for module, _ in console.COMMANDS.values()} == mains - {"babel"}
    assert all(f"  {name} " in console.help_text() for name in console.COMMANDS)


@pytest.mark.parametrize("name", console.COMMANDS)
def test_a_console_command_is_its_module(name: str, monkeypatch: pytest.MonkeyPatch):
    called = []
    monkeypatch.setattr(
        "runpy.run_module", lambda module, **how: called.append((module, how["run_name"], sys.argv[1:]))
    )
    monkeypatch.setattr(sys, "argv", ["jaxprefix", name, "--flag", "x"])
    console.main()
    ((module, run_name, arguments),) = called
    assert run_name == "__main__" and arguments == ["--flag", "x"]
    assert hasattr(importlib.import_module(module if name == "generate" else f"{module}.__main__"), "main")


def test_the_console_command_in_a_process():
    """Help takes 0.1 s, because it imports nothing of JAX. An unknown command is one line."""
    code = "import sys; from jaxprefix.__main__ import main; sys.argv[1:] = ['--help']; main(); print(set(sys.modules))"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    printed = run("-c", code).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert printed.startswith("usage: jaxprefix") and "'jax'" not in printed and "'numpy'" not in printed
    assert after.ru_utime - before.ru_utime < 2
    done = subprocess.run([sys.executable, "-m", "jaxprefix", "trian"], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: 'trian' is not a command of jaxprefix; expected train, evaluate")


@pytest.mark.parametrize("arguments", [[], ["--task", "babel-qa"]])
def test_the_embedded_default_is_evaluated(arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any):
    """Without arguments the command ends with an evaluation; otherwise it says how to evaluate."""
    evaluated = []
    monkeypatch.setattr(train_command, "train", lambda *_: Path("runs/made"))
    monkeypatch.setattr(train_command, "evaluate", lambda run, *_: evaluated.append(run))
    monkeypatch.setattr("sys.argv", ["train", *arguments])
    train_command.main()
    assert evaluated == ([] if arguments else [Path("runs/made")])
    assert ("evaluate: python -m jaxprefix.evaluation runs/made" in capsys.readouterr().out) == bool(arguments)
