"""python -m jaxprefix.probe RUN[,RUN...]: what adaptation does to the representations of many languages."""

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from jaxprefix.distributed import mesh
from jaxprefix.io import terminal
from jaxprefix.io.arguments import read_arguments
from jaxprefix.probe.probe import probe
from jaxprefix.probe.settings import Probe
from jaxprefix.runs.directory import run_directories


@dataclass(frozen=True)
class Command:
    """Measures the representations of trained runs beside their frozen base.

    mexa and cka: how similar a sentence and its translation are. language-id: how well the language can be read from a
    layer. attention: the share of virtual tokens in attention, or their gates. lens: in which language a layer would
    answer. forgetting: the loss on plain text that the adapter adds. neurons: those that are specific to a language.
    """

    run: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="RUN[,RUN...]")]]
    """The run directory that training printed, or several of one base, comma-separated."""
    settings: Annotated[Probe, tyro.conf.arg(name="")] = field(default_factory=Probe)
    quiet: bool = False
    """Show no progress."""


def main() -> None:
    command = read_arguments(Command, "python -m jaxprefix.probe")
    command.settings.check()
    directories = run_directories(command.run)
    if emulated := mesh.configure_platform(command.settings.mesh, command.settings.platform):
        print(emulated)
    probe(directories, command.settings, command.quiet)


if __name__ == "__main__":
    terminal.run(main)
