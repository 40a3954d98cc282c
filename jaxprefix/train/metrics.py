"""metrics.jsonl, one row a step, and its copies for TensorBoard and Weights & Biases.

Also here: what a run does about a step whose loss or gradient is not finite.
"""

import hashlib
import io
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from jaxprefix.distributed import processes
from jaxprefix.errors import InputError
from jaxprefix.io.atomic import write_atomically
from jaxprefix.runs.config import RunConfig
from jaxprefix.train.batches import TrainBatch
from jaxprefix.train.profile import phase

FILE = "metrics.jsonl"


class MetricsLogger:
    """Appends rows {"step": n, ...} to metrics.jsonl. A resumed run first drops the rows after its checkpoint.

    Of several processes, the first one writes.
    """

    def __init__(self, directory: Path, config: RunConfig, step: int) -> None:
        self.path = directory / FILE
        kept = [row for row in read(directory) if row["step"] <= step] if step else []
        write_atomically(self.path, "".join(json.dumps(row) + "\n" for row in kept).encode())
        first = processes.is_main_process()
        self.file = (self.path if first else Path(os.devnull)).open("a", encoding="utf-8")
        self.events = _tensorboard(directory, step) if config.tensorboard and first else None
        self.project = _wandb(directory, config) if config.wandb and first else None

    def write(self, row: dict[str, Any]) -> None:
        """JSON has no number that is not finite: it is null in the file, and not in the copies."""
        found = {name: value if math.isfinite(value) else None for name, value in row.items()}
        self.file.write(json.dumps(found) + "\n")
        self.file.flush()
        finite = {name: value for name, value in found.items() if value is not None}
        for name, value in finite.items():
            if self.events and name != "step":
                self.events.add_scalar(name, value, row["step"])
        if self.project:
            self.project.log(finite, step=row["step"])

    def close(self) -> None:
        self.file.close()
        if self.events:
            self.events.close()
        if self.project:
            self.project.finish()


def read(directory: Path) -> list[dict[str, Any]]:
    """The rows so far; a last line that a crash cut short is left out."""
    path = directory / FILE
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("}\n")]


def _tensorboard(directory: Path, step: int) -> Any:
    from tensorboardX import SummaryWriter

    return SummaryWriter(str(directory / "tensorboard"), purge_step=step + 1)


def _wandb(directory: Path, config: RunConfig) -> Any:
    import wandb  # type: ignore[import-not-found]

    # The place is the run's id: a resumed run goes on in the same record, another machine's runs/first is another one.
    place = hashlib.sha256(str(directory.resolve()).encode()).hexdigest()[:12]
    settings = config.as_json()
    return wandb.init(
        project=config.wandb, name=directory.name, id=place, resume="allow", dir=directory, config=settings
    )


Write = Callable[[dict[str, Any]], None]  # takes a row of metrics


class NonFiniteLoss(InputError):
    """A step's loss or gradient is not finite, and the run stops there; its state is that of the step before."""

    def __init__(self, step: int, loss: float, gradient: float, rate: float) -> None:
        self.step = step
        self.what = f"the loss is {loss} and its gradient {gradient} at step {step}, learning rate {rate:g}"
        super().__init__(f"{self.what}; choose a smaller learning rate")


class StepMetrics:
    """The metrics of steps, kept on the devices until they are written.

    Attributes:
        skipped: the steps so far whose loss or gradient was not finite, which the schedule does not count.
    """

    def __init__(self, learning_rate: optax.Schedule, on_nan: str, write: Write, skipped: int = 0) -> None:
        self.skipped = skipped
        self._learning_rate, self._on_nan, self._write = learning_rate, on_nan, write
        self._waiting: list[tuple[int, int, dict[str, Any]]] = []  # step, tokens read, metrics

    def add(self, step: int, tokens: int, metrics: dict[str, Any]) -> None:
        """Takes a step that is still computed, and waits for the one before it.

        One step ahead keeps the devices busy; with more, a run that is asked to stop would have to wait for them.
        """
        self._wait()
        self._waiting.append((step, tokens, metrics))

    def write(self, began: float) -> tuple[float, float]:
        """Writes a row for each step since the last call; returns the last step's loss and the tokens per second.

        `began` is when the first of them began, by time.monotonic(). Raises NonFiniteLoss where the run is to stop.
        """
        self._wait()
        speed = sum(tokens for _, tokens, _ in self._waiting) / max(time.monotonic() - began, 1e-9)
        loss, before = float(self._waiting[-1][2]["loss"]), self.skipped
        for step, _, metrics in self._waiting:
            row = {name: float(value) for name, value in metrics.items()}
            rate = float(np.asarray(self._learning_rate(step - 1 - self.skipped)))
            self._write({"step": step} | row | {"learning_rate": rate, "tokens_per_second": round(speed, 1)})
            if not math.isfinite(row["loss"] + row["gradient_norm"]):
                if self._on_nan == "stop":
                    raise NonFiniteLoss(step, row["loss"], row["gradient_norm"], rate)
                self.skipped += 1
        if self.skipped > before:
            first, last, count = self._waiting[0][0], self._waiting[-1][0], self.skipped - before
            print(f"steps {first} to {last}: {count} skipped, their loss or gradient is not finite")
        self._waiting = []
        return loss, speed

    def _wait(self) -> None:
        with phase("wait"):
            jax.block_until_ready(self._waiting[-1:])


def keep_batch(directory: Path, step: int, batch: TrainBatch) -> Path:
    """Writes what a step was to learn beside the run's other files, and returns where."""
    path, content = directory / f"nan-step-{step}.npz", io.BytesIO()
    np.savez(content, **{each.name: np.asarray(getattr(batch, each.name)) for each in fields(batch)})  # type: ignore[arg-type]
    write_atomically(path, content.getvalue())
    return path
