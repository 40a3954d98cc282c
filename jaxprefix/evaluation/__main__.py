"""python -m jaxprefix.evaluation RUN: zero-shot scores in many languages; compare: two runs; seeds: runs alike."""

import sys
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from jaxprefix import mesh, terminal
from jaxprefix.directory import run_directories
from jaxprefix.evaluation.compare import Compare, compare
from jaxprefix.evaluation.evaluate import Evaluation, evaluate_together
from jaxprefix.evaluation.seeds import Seeds, seeds

PROGRAM = "python -m jaxprefix.evaluation"


@dataclass(frozen=True)
class Command:
    """Scores a trained run, or several that share a base, in many languages.

    Two commands stand in the place of RUN: "compare RUN_A RUN_B" tests the difference of two evaluated runs, "seeds
    RUN,RUN" averages runs that differ in their seed; --help after each says more. A run directory that has the name
    compare or seeds is reached as ./compare or ./seeds.
    """

    run: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="RUN[,RUN...]")]]
    """The run directory that training printed; several, comma-separated, are scored in the same batches."""
    settings: Annotated[Evaluation, tyro.conf.arg(name="")] = field(default_factory=Evaluation)
    quiet: bool = False
    """No progress."""


def main() -> None:
    name, arguments = "".join(sys.argv[1:2]), sys.argv[2:]
    if name == "compare":
        compare(tyro.cli(Compare, args=arguments, prog=f"{PROGRAM} compare"))
    elif name == "seeds":
        seeds(tyro.cli(Seeds, args=arguments, prog=f"{PROGRAM} seeds"))
    else:
        _evaluate(tyro.cli(Command, args=sys.argv[1:], prog=PROGRAM))


def _evaluate(command: Command) -> None:
    command.settings.check()
    directories = run_directories(command.run)
    if emulated := mesh.prepare(command.settings.mesh, command.settings.platform):
        print(emulated)
    evaluate_together(directories, command.settings, command.quiet)


if __name__ == "__main__":
    terminal.run(main)
