"""python -m jaxprefix.generate RUN "prompt": what an adapted model answers."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from jaxprefix import mesh, terminal
from jaxprefix.evaluation.engine import predict, questions
from jaxprefix.evaluation.evaluate import Evaluation, open_model
from jaxprefix.tasks.metrics import score_generated
from jaxprefix.tasks.own import prompt_end
from jaxprefix.tasks.task import Example, Task


@dataclass(frozen=True)
class Command:
    """Answers prompts with a trained run, greedily."""

    run: tyro.conf.Positional[Path]
    """The run directory that training printed."""
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
    if command.max_new_tokens < 1:
        raise ValueError(f"--max-new-tokens is {command.max_new_tokens}; expected at least 1")
    mesh.prepare(None, command.platform)
    prompts = [command.prompt] if command.prompt is not None else [line for line in sys.stdin if line.strip()]
    if not prompts:
        raise ValueError('no prompt; expected RUN "prompt", or prompts on standard input, one a line')
    for answer in answers(command, prompts):
        print(answer)


def answers(command: Command, prompts: list[str]) -> list[str]:
    """One answer a prompt, in order."""
    settings = Evaluation(batch=command.batch, mesh="1x1", platform=command.platform)
    settings.check()
    model, _ = open_model(command.run, settings)
    examples = [
        Example(str(place), "", before="", context="", after=prompt_end(prompt), response="", references=("",))
        for place, prompt in enumerate(prompts)
    ]
    task = Task("prompts", (), "", lambda *_: [], lambda *_: None, (), score_generated, command.max_new_tokens)
    asked = questions(model, task, examples)
    if len(asked) < len(prompts):
        raise ValueError(
            f"{len(prompts) - len(asked)} of {len(prompts)} prompts are longer than the run's {model.max_length} tokens"
        )
    rows = [row for part in predict(model, task, asked, command.batch) for row in part]
    return [row["prediction"] for row in sorted(rows, key=lambda row: int(row["id"]))]


if __name__ == "__main__":
    terminal.run(main)
