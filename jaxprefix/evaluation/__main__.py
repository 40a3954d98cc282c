"""python -m jaxprefix.evaluation RUN: zero-shot scores of a trained run in many languages."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from jaxprefix import mesh, terminal
from jaxprefix.evaluation.evaluate import Evaluation, evaluate


@dataclass(frozen=True)
class Command:
    """Scores a trained run in many languages."""

    run: tyro.conf.Positional[Path]
    """The run directory that training printed."""
    settings: Annotated[Evaluation, tyro.conf.arg(name="")] = field(default_factory=Evaluation)
    quiet: bool = False
    """No progress."""


def main() -> None:
    command = tyro.cli(Command, args=sys.argv[1:], prog="python -m jaxprefix.evaluation")
    command.settings.check()
    if emulated := mesh.prepare(command.settings.mesh, command.settings.platform):
        print(emulated)
    evaluate(command.run, command.settings, command.quiet)


if __name__ == "__main__":
    terminal.run(main)
