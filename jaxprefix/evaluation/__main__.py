"""python -m jaxprefix.evaluation RUN: zero-shot scores in many languages; also `beside`, `compare` and `seeds`."""

import sys
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from jaxprefix.errors import InputError
from jaxprefix.evaluation.compare import Compare, compare
from jaxprefix.evaluation.evaluate import Evaluation, evaluate_together
from jaxprefix.evaluation.seeds import Seeds, seeds
from jaxprefix.evaluation.side_by_side import Beside, beside
from jaxprefix.io import terminal
from jaxprefix.io.arguments import read_arguments
from jaxprefix.io.multihost import started
from jaxprefix.runs.directory import run_directories

PROGRAM = "python -m jaxprefix.evaluation"


@dataclass(frozen=True)
class Command:
    """Scores a trained run, or several runs of one base, in many languages.

    Three commands take evaluated runs: "beside RUN,RUN" shows their scores in one table, "compare RUN_A RUN_B" tests
    the difference of two, "seeds RUN,RUN" averages runs that differ in their seed. Each has its own --help. Write
    ./compare for a run directory with one of these names.
    """

    run: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="RUN[,RUN...]")]]
    """The run directory that training printed. Several, comma-separated, are scored in the same batches."""
    settings: Annotated[Evaluation, tyro.conf.arg(name="")] = field(default_factory=Evaluation)
    quiet: bool = False
    """Show no progress."""
    hosts: str | None = None
    """Evaluate with several processes: auto (TPU pods, SLURM), or ADDRESS:PORT,PROCESS/PROCESSES in each process."""


def main() -> None:
    name, arguments = "".join(sys.argv[1:2]), sys.argv[2:]
    if name == "beside":
        beside(read_arguments(Beside, f"{PROGRAM} beside", arguments))
    elif name == "compare":
        compare(read_arguments(Compare, f"{PROGRAM} compare", arguments))
    elif name == "seeds":
        seeds(read_arguments(Seeds, f"{PROGRAM} seeds", arguments))
    elif any(each.partition("=")[0] == "--model" for each in [name, *arguments]):
        raise InputError(
            "an evaluation takes a run, not --model; for a model without an adapter, make its run first: "
            "python -m jaxprefix.train --method none --model MODEL --task TASK"
        )
    else:
        _evaluate(read_arguments(Command, PROGRAM))


def _evaluate(command: Command) -> None:
    command.settings.check()
    directories = run_directories(command.run)
    with started(command.settings.mesh, command.settings.platform, command.hosts) as emulated:
        if emulated:
            print(emulated)
        evaluate_together(directories, command.settings, command.quiet)


if __name__ == "__main__":
    terminal.run(main)
