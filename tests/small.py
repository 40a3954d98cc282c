"""Shared by tests of whole runs: a tiny random Llama on disk, invented rows, and configurations that take seconds."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from jaxprefix.models import decoder, weights
from jaxprefix.models.config import DecoderConfig
from jaxprefix.runs.config import RunConfig
from jaxprefix.train.loop import train
from jaxprefix.train.metrics import MetricsLogger, read

# A local mirror of the Hub, with real rows.
MIRROR = Path(os.environ.get("JAXPREFIX_DATA") or os.devnull)
needs_rows = pytest.mark.skipif(not MIRROR.is_dir(), reason="no real rows: set JAXPREFIX_DATA to a mirror of the Hub")

SIZES = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 512,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "max_position_embeddings": 1024,
}
COLOURS = ("red", "green", "blue", "white", "black")
THINGS = ("boat", "lamp", "stone", "door", "bird", "apple", "mountain hut")


def rows(count: int, language: str = "en", longest: int = 4) -> list[dict[str, Any]]:
    """Invented rows that state a fact once or up to `longest` times; every answer occurs in its prompt."""
    found = []
    for number in range(count):
        colour, thing = COLOURS[number % len(COLOURS)], THINGS[number % len(THINGS)]
        story = f"The {thing} is {colour}. " * (1 + number % longest)
        prompt = f"{number}: {story}What colour is the {thing}?"
        found.append({"prompt": prompt, "response": colour, "language": language})
    return found


def write_rows(path: Path, found: Iterable[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found), encoding="utf-8")
    return path


def write_model(directory: Path, texts: Sequence[str] | None = None, scale: float = 1.0, **sizes: Any) -> Path:
    """A random Llama with a byte-level BPE tokenizer trained on `texts`; weights are normal 0.02 times `scale`."""
    directory.mkdir(parents=True, exist_ok=True)
    values = SIZES | sizes
    config = DecoderConfig.parse(values)
    frozen = jax.jit(decoder.init, static_argnums=1)(jax.random.key(7), config)
    frozen = jax.tree.map(lambda leaf: leaf if bool((leaf == 1).all()) else scale * leaf, frozen)
    weights.save(frozen, config, directory)
    (directory / "config.json").write_text(json.dumps(values))
    texts = [row["prompt"] for row in rows(35)] if texts is None else texts
    bpe(texts, config.vocabulary_size).save(str(directory / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return directory


def bpe(texts: Sequence[str], vocabulary: int) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return tokenizer


def configuration(model: Path, train_file: Path | None, **changes: Any) -> RunConfig:
    """A run of seconds on one device."""
    settings = {"batch": 4, "max_length": 96, "steps": 4, "mesh": "1x1", "log_every": 1, "held_out": 4, "lr": 1e-2}
    return RunConfig(model=str(model), train_file=train_file, **(settings | changes))


def metrics(directory: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without the one value that differs between runs."""
    return [{name: value for name, value in row.items() if name != "tokens_per_second"} for row in read(directory)]


def predictions(directory: Path) -> list[dict[str, Any]]:
    """The current rows of predictions.jsonl, the last of each key, by task and in a fixed order of questions."""
    rows = [json.loads(line) for line in (directory / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    last = max(row["step"] for row in rows)
    found = {row["key"]: row for row in rows if row["step"] == last}
    return sorted(found.values(), key=lambda row: (row["task"], len(row["id"]), row["id"], row["prompt"]))


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def popen(commands: Iterable[Sequence[str]]) -> list[subprocess.Popen[str]]:
    """Running Python processes with these arguments."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return [subprocess.Popen([sys.executable, *command], text=True, **pipes) for command in commands]


def with_hosts(command: Sequence[str], processes: int) -> list[list[str]]:
    """The command of each of several processes on this machine."""
    address = f"127.0.0.1:{free_port()}"
    return [[*command, "--hosts", f"{address},{number}/{processes}"] for number in range(processes)]


def results(running: Sequence[subprocess.Popen[str]]) -> list[subprocess.CompletedProcess[str]]:
    """The results of the processes, which are killed if they do not end."""
    try:
        texts = [process.communicate(timeout=500) for process in running]
    finally:
        for process in running:
            process.kill()
    return [
        subprocess.CompletedProcess(process.args, process.returncode, *text)
        for process, text in zip(running, texts, strict=True)
    ]


def together(command: Sequence[str], processes: int) -> list[subprocess.CompletedProcess[str]]:
    """The results of the command in this many processes."""
    return results(popen(with_hosts(command, processes)))


class Stopped(Exception):
    """The interruption in `train_until`."""


def train_until(step: int, config: RunConfig, output: Path) -> None:
    """Trains until the metrics of `step` are written."""
    written = MetricsLogger.write

    def write(self: MetricsLogger, row: dict[str, Any]) -> None:
        written(self, row)
        if row["step"] >= step:
            raise Stopped

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(MetricsLogger, "write", write)
        train(config, output, quiet=True)
