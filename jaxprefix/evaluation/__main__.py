"""python -m jaxprefix.evaluation RUN: zero-shot scores of a trained run in many languages."""

import sys
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from jaxprefix import mesh, terminal
from jaxprefix.directory import run_directories
from jaxprefix.evaluation.evaluate import Evaluation, evaluate_together


@dataclass(frozen=True)
class Command:
    """Scores a trained run, or several that share a base, in many languages."""

    run: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="RUN[,RUN...]")]]
    """The run directory that training printed; several, comma-separated, are scored in the same batches."""
    settings: Annotated[Evaluation, tyro.conf.arg(name="")] = field(default_factory=Evaluation)
    quiet: bool = False
    """No progress."""


def main() -> None:
    command = tyro.cli(Command, args=sys.argv[1:], prog="python -m jaxprefix.evaluation")
    command.settings.check()
    directories = run_directories(command.run)
    if emulated := mesh.prepare(command.settings.mesh, command.settings.platform):
        print(emulated)
    evaluate_together(directories, command.settings, command.quiet)


if __name__ == "__main__":
    terminal.run(main)
