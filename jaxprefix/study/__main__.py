"""python -m jaxprefix.study SPEC: trains and evaluates what a study lacks, and writes its tables."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxprefix.distributed import mesh
from jaxprefix.errors import InputError
from jaxprefix.evaluation.settings import names
from jaxprefix.io import terminal
from jaxprefix.io.arguments import read_arguments
from jaxprefix.study import html, specification
from jaxprefix.study.folder import Folder
from jaxprefix.study.listing import listing
from jaxprefix.study.on_ray import work_on_ray
from jaxprefix.study.plan import Plan, plan
from jaxprefix.study.report import report
from jaxprefix.study.work import work
from jaxprefix.train.dry_run.chips import Name

PROGRAM = "python -m jaxprefix.study"


@dataclass(frozen=True)
class Command:
    """Runs a study: every cell that its directory lacks, then the tables. The same command resumes it.

    The specifications of the package are babel, few-shot, first, gating, generation, hybrid, mechanism, paper,
    sources and xtreme-r. docs/study.md explains how to write your own. "report DIR" writes report.html, a page of a
    study that is done; it has its own --help.
    """

    specification: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="SPEC")]]
    """The name of one of the package's specifications, or a TOML file."""
    output: Path | None = None
    """The directory of the study. The default is runs/study-NAME."""
    models: Annotated[str | None, tyro.conf.arg(aliases=["--model"])] = None
    """Comma-separated directories or Hub ids: use these models, instead of those of the specification."""
    steps: int | None = None
    """Optimizer steps of each run, instead of those of the specification."""
    limit: int | None = None
    """Questions per language, instead of those of the specification."""
    seeds: str | None = None
    """Comma-separated seeds of each run, instead of those of the specification."""
    data: Path | None = None
    """A local mirror of the Hub's data sets."""
    only: str | None = None
    """Run only the cells of this table, such as "Table 2"."""
    retry: bool = False
    """Run the cells that failed again."""
    list: bool = False
    """Only print each cell: its state, its directory, and the two commands that make it. No model is read."""
    dry_run: bool = False
    """Only print the cells, parameters, memory and hours of each table, from the config.json of each model."""
    chip: Name = "H100"
    """The chip of --dry-run."""
    mesh: str | None = None
    """The device mesh, DATAxMODEL, such as 4x2. The default is all devices x 1."""
    platform: Literal["cpu", "cuda", "tpu"] | None = None
    """The platform to run on. cpu emulates a mesh of any size."""
    engine: Literal["ray"] | None = None
    """ray runs cells at the same time on a Ray cluster: that of RAY_ADDRESS or of this machine, or else a local one. A
    cell gets as many accelerators as --mesh has devices. The default runs them one after another in this process."""
    quiet: bool = False
    """Do not show progress."""


def main() -> None:
    if sys.argv[1:2] == ["report"]:
        print(f"page: {html.report(read_arguments(html.Report, f'{PROGRAM} report', sys.argv[2:]))}")
        return
    command = read_arguments(Command, PROGRAM)
    study = planned(command)
    output = command.output or Path("runs") / f"study-{study.specification.name}"
    folder = Folder(output, command.data, command.mesh, command.platform)
    study.tables(command.only)
    if command.list:
        for line in listing(study, folder, command.only):
            print(line)
        return
    if command.dry_run:
        from jaxprefix.study.dry_run import dry_run

        mesh.configure_platform(None, "cpu")
        dry_run(study, command.chip, command.only)
        return
    if command.engine == "ray":
        mesh.configure_platform(None, "cpu")  # the accelerators are for the workers
    elif emulated := mesh.configure_platform(command.mesh, command.platform):
        print(emulated)
    do = work_on_ray if command.engine == "ray" else work
    if run(study, folder, command.only, command.retry, command.quiet, do):
        sys.exit(1)


def planned(command: Command) -> Plan:
    """The plan of the specification, with the models, steps, questions and seeds of the command."""
    for name in ("steps", "limit"):
        if (value := getattr(command, name)) is not None and value < 1:
            raise InputError(f"--{name} is {value}; expected at least 1")
    seeds = names(command.seeds) if command.seeds else []
    if not all(seed.isdecimal() for seed in seeds):
        raise InputError(f"--seeds {command.seeds}; expected whole numbers, comma-separated, such as 0,1,2")
    study = specification.read(command.specification)
    models = names(command.models) if command.models else []
    study = study.smaller(models, command.steps, command.limit, list(map(int, seeds)))
    try:
        return plan(study)
    except InputError as error:
        raise InputError(f"{command.specification}: {error}") from None


def run(
    study: Plan,
    folder: Folder,
    only: str | None = None,
    retry: bool = False,
    quiet: bool = False,
    do: Callable[[Plan, Folder, str | None, bool, bool], None] = work,
) -> int:
    """Runs what is missing, by `work` or `work_on_ray`, and writes the tables.

    Returns:
        the number of cells that failed
    """
    folder.open(study)
    do(study, folder, only, retry, quiet)
    return report(study, folder, only)


if __name__ == "__main__":
    terminal.run(main)
