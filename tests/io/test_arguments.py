"""A mistake in a command line is one line with what was given, what is expected and where the options are listed."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest
import tyro

from jaxprefix.errors import InputError
from jaxprefix.evaluation import __main__ as evaluation_command
from jaxprefix.io.arguments import read_arguments


@dataclass(frozen=True)
class Inner:
    rank: int = 4

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise InputError(f"rank is {self.rank}; expected at least 1")


@dataclass(frozen=True)
class Command:
    """A command."""

    run: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN")]]
    """A run that a long sentence of several words describes."""
    config: Annotated[Inner, tyro.conf.arg(name="lora")] = Inner()
    steps: int | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"


HELP = "; it --help lists the options"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("run --steps 2.5", "--steps is '2.5'; expected INT"),
        ("run --dtype half", "invalid choice 'half' for argument '--dtype'. Expected one of ('float32', 'bfloat16')"),
        ("run --lora.rank 0", "rank is 0; expected at least 1"),
        ("run --stepz 3", "Unrecognized options: --stepz, 3; perhaps --steps"),
        ("run --steps", "Missing value for argument '--steps'. Expected 1 values"),
        ("", "it needs RUN"),
    ],
)
@pytest.mark.parametrize("columns", ["40", None])
def test_a_mistake_is_one_line(arguments: str, message: str, columns: str | None, monkeypatch: pytest.MonkeyPatch):
    """In terminals of any width, which stays as it was."""
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(InputError) as raised:
        read_arguments(Command, "it", arguments.split())
    assert str(raised.value) == message + HELP
    assert os.environ.get("COLUMNS") == columns


def test_arguments_and_help_are_tyros(capsys: pytest.CaptureFixture[str]):
    assert read_arguments(Command, "it", ["run", "--steps", "3"]) == Command(Path("run"), steps=3)
    with pytest.raises(SystemExit) as ended:
        read_arguments(Command, "it", ["--help"])
    assert ended.value.code == 0 and "A run that a long sentence" in capsys.readouterr().out


def test_an_evaluation_of_a_model_says_how(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["command", "--model", "gpt", "--task", "xquad"])
    with pytest.raises(InputError, match="make its run first: python"):
        evaluation_command.main()
