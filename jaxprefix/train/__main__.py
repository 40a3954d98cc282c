"""python -m jaxprefix.train: adapts a frozen model to a task in one language."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from jaxprefix.distributed import mesh
from jaxprefix.errors import InputError
from jaxprefix.evaluation.evaluate import Evaluation, evaluate
from jaxprefix.io import terminal
from jaxprefix.io.arguments import read_arguments
from jaxprefix.io.hub import expanded
from jaxprefix.io.messages import shell
from jaxprefix.io.multihost import started
from jaxprefix.runs.config import RunConfig, refuse_foreign_flags
from jaxprefix.runs.directory import read_run
from jaxprefix.train.dry_run import dry_run
from jaxprefix.train.dry_run.chips import Name
from jaxprefix.train.loop import train
from jaxprefix.train.signals import stoppable


@dataclass(frozen=True)
class Command:
    """Adapts a frozen model to a task in one language; without --model, the small model of this package.

    --config RUN/run.json takes all settings from an earlier run. Other flags override them.
    """

    config: Annotated[RunConfig, tyro.conf.arg(name="")]
    output: Path | None = None
    """The run directory. The default is runs/TASK-METHOD-N. An existing run is resumed."""
    quiet: bool = False
    """Do not show progress."""
    profile: int | None = None
    """Trace this many steps, from the third on, into DIRECTORY/profile, for TensorBoard (XProf) and Perfetto."""
    dry_run: bool = False
    """Only compile the step, from the model's config.json, and print the memory, FLOPs and collectives per device."""
    hosts: str | None = None
    """Train with several processes: auto (TPU pods, SLURM), or ADDRESS:PORT,PROCESS/PROCESSES in each process."""
    chip: Name | None = None
    """The chip of a --dry-run. For a TPU, its own compiler is used if the extra `tpu` is installed."""


def main() -> None:
    arguments, default = _with_config(sys.argv[1:])
    command = read_arguments(Command, "python -m jaxprefix.train", arguments, default=Command(default))
    command.config.check()
    refuse_foreign_flags(arguments, command.config.method)
    if command.dry_run:
        if command.profile is not None:
            raise InputError(f"--profile {command.profile} traces steps, but --dry-run runs none; drop one of them")
        mesh.configure_platform(command.config.mesh, "cpu")
        dry_run(command.config, command.chip, command.output)
        return
    if command.chip:
        raise InputError(f"--chip {command.chip} is only for --dry-run; add --dry-run, or drop it")
    with started(command.config.mesh, command.config.platform, command.hosts) as emulated:
        if emulated:
            print(emulated)
        _train(command)


def _train(command: Command) -> None:
    with stoppable() as stop:
        directory = train(command.config, command.output, command.quiet, stop, command.profile)
        if stop.asked:
            raise terminal.Stopped(f"stopped by {stop.asked.name}; the training is finished", stop.asked)
    if command.config.model or command.config.task or command.config.train_file:
        file = command.config.eval_file or command.config.train_file
        rows = f" --eval-file {shell(file)}" if file else ""
        print(f"evaluate: python -m jaxprefix.evaluation {shell(directory)}{rows}")
        return
    # The embedded default is a small example of the whole job: its evaluation takes seconds. Benchmarks can take hours.
    settings = Evaluation(mesh=command.config.mesh, platform=command.config.platform)
    evaluate(directory, settings, command.quiet)


def _config_of(run: Path) -> RunConfig:
    """The settings of a run. A relative --model that is not here is replaced by its absolute path."""
    values = read_run(run)
    config, path = RunConfig.from_json(values["config"]), values.get("model_path")
    is_elsewhere = path is not None and Path(path).is_dir() and not expanded(config.model or "").is_dir()
    return replace(config, model=path) if is_elsewhere else config


def _with_config(arguments: list[str]) -> tuple[list[str], RunConfig]:
    """Removes `--config FILE` from the arguments and returns its settings as the defaults of all other flags."""
    for index, argument in enumerate(arguments):
        name, _, value = argument.partition("=")
        if name == "--config":
            rest = arguments[:index] + arguments[index + (1 if value else 2) :]
            value = value or (arguments[index + 1] if index + 1 < len(arguments) else "")
            if not value:
                raise InputError("--config needs the run.json of an earlier run")
            default = _config_of(Path(value))
            if any(flag.startswith("--steps") for flag in rest):  # a given flag replaces the other one
                default = replace(default, epochs=None)
            if any(flag.startswith("--epochs") for flag in rest):
                default = replace(default, steps=None)
            return rest, default
    return arguments, RunConfig()


if __name__ == "__main__":
    terminal.run(main)
