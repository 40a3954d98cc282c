"""python -m jaxprefix.generate RUN "prompt": what an adapted model answers."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxprefix import mesh, terminal
from jaxprefix.directory import run_directories
from jaxprefix.evaluation.ask import answers
from jaxprefix.evaluation.model import open_model


@dataclass(frozen=True)
class Command:
    """Answers prompts with a trained run, greedily; or with several, in the same batches."""

    run: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="RUN[,RUN...]")]]
    """The run directory that training printed; several, comma-separated, answer every prompt in turn."""
    prompt: tyro.conf.Positional[str | None] = None
    """Left out, every line of standard input is one."""
    max_new_tokens: int = 64
    """The longest answer, in tokens."""
    batch: int = 8
    """Prompts at a time."""
    platform: Literal["cpu", "cuda", "tpu"] | None = None
    """Where to run."""


def main() -> None:
    command = tyro.cli(Command, args=sys.argv[1:], prog="python -m jaxprefix.generate")
    for name in ("max_new_tokens", "batch"):
        if getattr(command, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} is {getattr(command, name)}; expected at least 1")
    directories = run_directories(command.run)
    mesh.prepare(None, command.platform)
    prompts = [command.prompt] if command.prompt is not None else [line for line in sys.stdin if line.strip()]
    if not prompts:
        raise ValueError('no prompt; expected RUN "prompt", or prompts on standard input, one a line')
    for line in lines(command, directories, prompts):
        print(line)


def lines(command: Command, directories: list[Path], prompts: list[str]) -> list[str]:
    """An answer a line, in the prompts' order; of several runs, each with its run's name before it."""
    model, _ = open_model(directories, "1x1", command.batch)
    asked = [prompt for prompt in prompts for _ in directories]
    runs = list(range(len(directories))) * len(prompts)
    found = answers(model, asked, runs, command.max_new_tokens, command.batch)
    if len(directories) == 1:
        return found
    return [f"{directories[run]}: {answer}" for run, answer in zip(runs, found, strict=True)]


if __name__ == "__main__":
    terminal.run(main)
