"""python -m jaxprefix.generate RUN "prompt": what an adapted model answers, as it writes it."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxprefix.distributed import mesh
from jaxprefix.errors import InputError
from jaxprefix.inference.answer import answers, stream
from jaxprefix.inference.model import Model, open_model
from jaxprefix.io import terminal
from jaxprefix.io.atomic import check_new_file, write_atomically
from jaxprefix.io.rows import read_rows
from jaxprefix.models.sampling import Sampling
from jaxprefix.runs.directory import run_directories


@dataclass(frozen=True)
class Command:
    """Answers prompts with a trained run; or with several, in the same batches."""

    run: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="RUN[,RUN...]")]]
    """The run directory that training printed; several, comma-separated, answer every prompt in turn."""
    prompt: tyro.conf.Positional[str | None] = None
    """Left out, you are asked for prompts; where standard input is no terminal, every line of it is one."""
    file: Path | None = None
    """A file of prompts: a text with one a line, or rows with "prompt" (.jsonl, .json, .csv, .parquet)."""
    output: Path | None = None
    """A new file for the answers: rows {"run", "prompt", "answer"} (.jsonl); left out, they are printed, each after its
    prompt where there are several."""
    max_new_tokens: int = 64
    """The longest answer, in tokens."""
    temperature: float = 0.0
    """Draw tokens at this temperature; 0 takes the likeliest."""
    top_k: int = 0
    """Draw among so many of the likeliest tokens; 0 is all."""
    top_p: float = 1.0
    """Draw among the likeliest tokens that hold this share together."""
    seed: int = 0
    """Of the draws."""
    stop: tuple[str, ...] = ()
    r"""Texts that end an answer and are no part of it; \n is a new line."""
    batch: int = 8
    """Prompts at a time."""
    platform: Literal["cpu", "cuda", "tpu"] | None = None
    """Where to run."""

    def check(self) -> None:
        """InputError, in one line, for settings that cannot be or that contradict each other."""
        for name in ("max_new_tokens", "batch"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name.replace('_', '-')} is {getattr(self, name)}; expected at least 1")
        if self.prompt is not None and self.file:
            raise InputError(f"a prompt and --file {self.file} both say what to ask; give one")
        if self.output:
            check_new_file(self.output)
        if "" in self.stop:
            raise InputError("--stop has an empty text, which would end every answer; leave it out")

    @property
    def sampling(self) -> Sampling:
        """How the tokens are chosen."""
        return Sampling(self.temperature, self.top_k, self.top_p, self.seed)

    @property
    def ends(self) -> tuple[str, ...]:
        """The texts of --stop as they stand in answers."""
        return tuple(text.replace("\\n", "\n") for text in self.stop)


def main() -> None:
    command = tyro.cli(Command, args=sys.argv[1:], prog="python -m jaxprefix.generate")
    command.check()
    command.sampling  # noqa: B018 - refuses draws that cannot be
    directories = run_directories(command.run)
    mesh.configure_platform(None, command.platform)
    asked = _prompts(command)
    model, _ = open_model(directories, "1x1", command.batch)
    if asked is None or (command.prompt is not None and not command.output):
        converse(command, directories, model, _typed() if asked is None else asked)
    else:
        answer(command, directories, model, asked)


def _prompts(command: Command) -> list[str] | None:
    """What is asked, None where a person at a terminal is still to say it."""
    if command.prompt is not None:
        return [command.prompt]
    if command.file and command.file.suffix.lower() in (".jsonl", ".json", ".csv", ".parquet"):
        rows = read_rows(command.file)
        for row in rows:
            if not isinstance(row.get("prompt"), str) or not row["prompt"].strip():
                raise InputError(f'{row.location}: "prompt" is {row.get("prompt")!r}; expected text')
        return [row["prompt"] for row in rows]
    if command.file is None and sys.stdin.isatty() and not command.output:
        return None
    found = [line.rstrip("\r\n") for line in _lines(command.file) if line.strip()]
    if not found:
        place = command.file or "standard input"
        raise InputError(f'no prompt in {place}; expected RUN "prompt", --file FILE, or prompts one a line')
    return found


def _lines(file: Path | None) -> Iterable[str]:
    if file is None:
        return sys.stdin
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"--file {file} cannot be read as text: {type(error).__name__}; give a file of prompts"
        ) from None


def _typed() -> Iterator[str]:
    """Prompts as a person types them, until the end of input."""
    print("a prompt a line; Ctrl-D ends", file=sys.stderr)
    while True:
        try:
            line = input("> ")
        except EOFError:
            print(file=sys.stderr)
            return
        if line.strip():
            yield line


def converse(command: Command, directories: Sequence[Path], model: Model, prompts: Iterable[str]) -> None:
    """Answers prompt by prompt, each answer printed piece by piece; whoever types may mend a prompt that cannot be."""
    for prompt in prompts:
        for number, directory in enumerate(directories):
            try:
                pieces = stream(model, prompt, number, command.max_new_tokens, command.sampling, command.ends)
            except InputError as error:
                if command.prompt is not None:
                    raise
                print(f"error: {error}", file=sys.stderr)
                break  # what one run cannot take, none can
            if len(directories) > 1:
                print(f"{directory}: ", end="", flush=True)
            for piece in pieces:
                print(piece, end="", flush=True)
            print()


def answer(command: Command, directories: Sequence[Path], model: Model, prompts: Sequence[str]) -> None:
    """Answers all prompts in shared batches, in their order: printed, or a row of --output each."""
    asked = [(prompt, run) for prompt in prompts for run in range(len(directories))]
    texts, runs = [prompt for prompt, _ in asked], [run for _, run in asked]
    found = answers(model, texts, runs, command.max_new_tokens, command.batch, command.sampling, command.ends)
    if command.output:
        rows = [
            {"run": str(directories[run]), "prompt": prompt, "answer": text}
            for (prompt, run), text in zip(asked, found, strict=True)
        ]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_atomically(command.output, text.encode("utf-8"))
        print(f"{len(rows)} answers: {command.output}")
        return
    for (prompt, run), text in zip(asked, found, strict=True):
        if len(prompts) > 1 and run == 0:  # answers may have several lines
            print("".join(f"> {line}\n" for line in prompt.splitlines()), end="")
        print(text if len(directories) == 1 else f"{directories[run]}: {text}")


if __name__ == "__main__":
    terminal.run(main)
