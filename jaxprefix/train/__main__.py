"""python -m jaxprefix.train: adapts a frozen model to a task in one language."""

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from jaxprefix.distributed import mesh, processes
from jaxprefix.errors import InputError
from jaxprefix.evaluation.evaluate import Evaluation, evaluate
from jaxprefix.io import terminal
from jaxprefix.runs.config import RunConfig, refuse_foreign_flags
from jaxprefix.runs.directory import read_run
from jaxprefix.train.dry_run import dry_run
from jaxprefix.train.dry_run.chips import Name
from jaxprefix.train.loop import train
from jaxprefix.train.signals import stoppable


@dataclass(frozen=True)
class Command:
    """Adapts a frozen Llama or Mistral to a task in one language; without arguments, the embedded default.

    --config RUN/run.json takes all settings from an earlier run; flags beside it go before them.
    """

    config: Annotated[RunConfig, tyro.conf.arg(name="")]
    output: Path | None = None
    """The run directory; left out, runs/TASK-METHOD-N. A run that is there already is gone on with."""
    quiet: bool = False
    """No progress."""
    profile: int | None = None
    """Trace so many steps into DIRECTORY/profile, for TensorBoard (XProf) and Perfetto: from the third of this command
    on, or its last ones where there are no more."""
    dry_run: bool = False
    """Only compile the step, from the model's config.json alone, and tell what it asks of each device."""
    hosts: str | None = None
    """Several processes train together: auto (TPU pods, SLURM), or ADDRESS:PORT,PROCESS/PROCESSES for each."""
    chip: Name | None = None
    """With --dry-run: the chip to plan for; a TPU's own compiler is asked where the extra `tpu` is installed."""


def main() -> None:
    arguments, default = _with_config(sys.argv[1:])
    command = tyro.cli(Command, args=arguments, default=Command(default), prog="python -m jaxprefix.train")
    command.config.check()
    refuse_foreign_flags(arguments, command.config.method)
    if command.dry_run:
        if command.profile is not None:
            raise InputError(f"--profile {command.profile} traces steps, and --dry-run does none; drop one of them")
        mesh.configure_platform(command.config.mesh, "cpu")
        dry_run(command.config, command.chip, command.output)
        return
    if command.chip:
        raise InputError(f"--chip {command.chip} is of a plan; add --dry-run, or drop it")
    emulated = mesh.configure_platform(command.config.mesh, command.config.platform, command.hosts)
    if command.hosts:
        mesh.start_jax()
        if not processes.is_main_process():
            sys.stdout = open(os.devnull, "w")  # to the end of the process
    if emulated:
        print(emulated)
    with stoppable() as stop:
        directory = train(command.config, command.output, command.quiet, stop, command.profile)
        if stop.asked:
            raise terminal.Stopped(f"stopped by {stop.asked.name}; the training is finished", stop.asked)
    if command.hosts or command.config.model or command.config.task or command.config.train_file:
        own = command.config.eval_file or command.config.train_file
        print(f"evaluate: python -m jaxprefix.evaluation {directory}" + (f" --eval-file {own}" if own else ""))
        return
    # The embedded default is the whole job in small, its evaluation takes seconds; a benchmark's can take hours.
    settings = Evaluation(mesh=command.config.mesh, platform=command.config.platform)
    evaluate(directory, settings, command.quiet)


def _with_config(arguments: list[str]) -> tuple[list[str], RunConfig]:
    """Takes `--config FILE` out: its settings are the defaults of all other flags."""
    for place, argument in enumerate(arguments):
        name, _, value = argument.partition("=")
        if name == "--config":
            rest = arguments[:place] + arguments[place + (1 if value else 2) :]
            value = value or (arguments[place + 1] if place + 1 < len(arguments) else "")
            if not value:
                raise InputError("--config needs the run.json of an earlier run")
            default = RunConfig.from_json(read_run(Path(value))["config"])
            if any(each.startswith("--steps") for each in rest):  # the one that is given takes the other's place
                default = replace(default, epochs=None)
            if any(each.startswith("--epochs") for each in rest):
                default = replace(default, steps=None)
            return rest, default
    return arguments, RunConfig()


if __name__ == "__main__":
    terminal.run(main)
