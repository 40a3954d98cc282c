"""python -m jaxprefix.generate RUN "prompt": streams the answer of an adapted model, or of a base with --model."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxprefix.distributed import processes
from jaxprefix.errors import InputError
from jaxprefix.inference.answer import answers, stream
from jaxprefix.inference.model import Model, open_frozen, open_model
from jaxprefix.io import terminal
from jaxprefix.io.arguments import read_arguments
from jaxprefix.io.atomic import check_new_file, write_atomically
from jaxprefix.io.multihost import started
from jaxprefix.io.rows import read_rows, split_name
from jaxprefix.models.sampling import Sampling
from jaxprefix.runs.directory import RUN_FILE, read_run, run_directories

ALL_POSITIONS = 2**31 - 1  # a length that is reduced to the positions of the model


@dataclass(frozen=True)
class Command:
    """Answers prompts with one or several trained runs, or with a base model: RUN PROMPT, or --model MODEL PROMPT."""

    run: tyro.conf.Positional[Annotated[str | None, tyro.conf.arg(metavar="RUN[,RUN...]")]] = None
    """The run directory that training printed, or several, comma-separated, which all answer every prompt."""
    prompt: tyro.conf.Positional[Annotated[str | None, tyro.conf.arg(metavar="PROMPT")]] = None
    """The prompt. Without it, prompts are read line by line from standard input."""
    model: str | None = None
    """A base model without an adapter, instead of a run: a directory in Hugging Face layout, or a Hub id with an
    optional @revision."""
    chat: bool = False
    """Use the chat template of --model. A run uses it if it was trained so."""
    file: Path | None = None
    """A file of prompts: text with one per line, or rows with "prompt" (.jsonl, .json, .parquet, .csv, .tsv)."""
    output: Path | None = None
    """A new .jsonl file for the answers: rows {"run", "prompt", "answer"}. Without it, answers are printed, each after
    its prompt if there are several."""
    max_new_tokens: int = 64
    """Maximum length of an answer, in tokens."""
    temperature: float = 0.0
    """Sampling temperature; 0 is greedy."""
    top_k: int = 0
    """Sample from the k most likely tokens; 0 is all."""
    top_p: float = 1.0
    """Sample from the most likely tokens with this total probability."""
    seed: int = 0
    """Seed of the sampling."""
    stop: tuple[str, ...] = ()
    r"""Texts that end an answer and are not part of it; \n is a newline."""
    batch: int = 8
    """Number of prompts per batch."""
    mesh: str = "1x1"
    """DATAxMODEL, such as 1x8 for a model that needs eight devices."""
    platform: Literal["cpu", "cuda", "tpu"] | None = None
    """Platform to run on."""
    hosts: str | None = None
    """Answer with several processes: auto (TPU pods, SLURM), or ADDRESS:PORT,PROCESS/PROCESSES in each process."""

    def with_base(self) -> "Command":
        """With --model there is no run: the first argument is the prompt."""
        if self.model is None:
            return self
        if self.prompt is not None:
            raise InputError(f"both a run, {self.run}, and --model {self.model}; a run names its own base, so give one")
        return replace(self, run=None, prompt=self.run)

    def check(self) -> None:
        """InputError for settings that are impossible or contradict each other."""
        if self.run is None and self.model is None:
            raise InputError("expected a run directory, or --model MODEL for a base without an adapter")
        if self.chat and self.model is None:
            raise InputError("--chat is for --model; a run uses the chat template if it was trained with it")
        for name in ("max_new_tokens", "batch"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name.replace('_', '-')} is {getattr(self, name)}; expected at least 1")
        if self.prompt is not None and self.file:
            raise InputError(f"both a prompt and --file {self.file}; give one")
        if self.output:
            check_new_file(self.output)
        if self.hosts and self.prompt is None and not self.file:
            raise InputError("--hosts needs PROMPT or --file, because only one process has standard input; give one")
        if "" in self.stop:
            raise InputError("--stop has an empty text, which would end every answer; leave it out")

    @property
    def sampling(self) -> Sampling:
        """The sampling settings."""
        return Sampling(self.temperature, self.top_k, self.top_p, self.seed)

    @property
    def ends(self) -> tuple[str, ...]:
        """The texts of --stop, with newlines."""
        return tuple(text.replace("\\n", "\n") for text in self.stop)


def main() -> None:
    command = read_arguments(Command, "python -m jaxprefix.generate").with_base()
    command.check()
    command.sampling  # noqa: B018 - raises for impossible settings
    directories = run_directories(command.run) if command.run is not None else []
    if command.prompt is None and command.file is None:
        for directory in directories:
            read_run(directory / RUN_FILE)  # what is no run is said before a prompt is asked for
    prompts = _prompts(command)
    with started(command.mesh, command.platform, command.hosts) as emulated:
        if emulated:
            print(emulated, file=sys.stderr)
        _answer(command, directories, prompts)


def _answer(command: Command, directories: Sequence[Path], prompts: list[str] | None) -> None:
    processes.check_same(repr((replace(command, hosts=None), prompts)), "the prompts or settings")
    if command.model is None:
        names, (model, _) = list(map(str, directories)), open_model(directories, command.mesh, command.batch)
    else:
        names, model = [command.model], open_frozen(command.model, command.mesh, command.batch, ALL_POSITIONS)
        model = replace(model, chat=command.chat, ends_prompts=False)
    if prompts is None or (command.prompt is not None and not command.output):
        converse(command, names, model, _typed() if prompts is None else prompts)
    else:
        answer(command, names, model, prompts)


def _prompts(command: Command) -> list[str] | None:
    """The prompts; None if they are still to be typed at a terminal."""
    if command.prompt is not None:
        return [command.prompt]
    if command.file and split_name(command.file)[1]:
        rows = read_rows(command.file)
        for row in rows:
            if not isinstance(row.get("prompt"), str) or not row["prompt"].strip():
                raise InputError(f'{row.location}: "prompt" is {row.get("prompt")!r}; expected text')
        return [row["prompt"] for row in rows]
    if command.file is None and sys.stdin.isatty() and not command.output:
        return None
    prompts = [line.rstrip("\r\n") for line in _lines(command.file) if line.strip()]
    if not prompts:
        source = command.file or "standard input"
        raise InputError(f'no prompt in {source}; expected RUN "prompt", --file FILE, or one prompt per line')
    return prompts


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
    """Prompts that a person types, until the end of the input."""
    print("one prompt per line; Ctrl-D to end", file=sys.stderr)
    while True:
        try:
            line = input("> ")
        except EOFError:
            print(file=sys.stderr)
            return
        if line.strip():
            yield line


def converse(command: Command, names: Sequence[str], model: Model, prompts: Iterable[str]) -> None:
    """Answers one prompt after another and prints answers as they are generated. A typed prompt may be invalid."""
    for prompt in prompts:
        for number, name in enumerate(names):
            try:
                pieces = stream(model, prompt, number, command.max_new_tokens, command.sampling, command.ends)
            except InputError as error:
                if command.prompt is not None:
                    raise
                print(f"error: {error}", file=sys.stderr)
                break  # the other runs would reject it too
            if len(names) > 1:
                print(f"{name}: ", end="", flush=True)
            for piece in pieces:
                print(piece, end="", flush=True)
            print()


def answer(command: Command, names: Sequence[str], model: Model, prompts: Sequence[str]) -> None:
    """Answers all prompts in batches, and prints the answers in order or writes them to --output."""
    requests = [(prompt, run) for prompt in prompts for run in range(len(names))]
    texts, runs = [prompt for prompt, _ in requests], [run for _, run in requests]
    results = answers(model, texts, runs, command.max_new_tokens, command.batch, command.sampling, command.ends)
    if command.output:
        rows = [
            {"run": names[run], "prompt": prompt, "answer": text}
            for (prompt, run), text in zip(requests, results, strict=True)
        ]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_atomically(command.output, text.encode("utf-8"))
        print(f"{len(rows)} answers: {command.output}")
        return
    for (prompt, run), text in zip(requests, results, strict=True):
        if len(prompts) > 1 and run == 0:  # answers may span several lines
            print("".join(f"> {line}\n" for line in prompt.splitlines()), end="")
        print(text if len(names) == 1 else f"{names[run]}: {text}")


if __name__ == "__main__":
    terminal.run(main)
