"""metrics.jsonl with one row per step, its copies for TensorBoard, W&B and trackio, and non-finite losses."""

import hashlib
import io
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from jaxtyping import Array

from jaxprefix.distributed import processes
from jaxprefix.errors import InputError
from jaxprefix.io.atomic import write_atomically
from jaxprefix.runs.config import RunConfig
from jaxprefix.runs.metrics_file import FILE, read
from jaxprefix.train.batches import TrainBatch
from jaxprefix.train.profile import phase


class MetricsLogger:
    """Appends rows {"step": n, ...} to metrics.jsonl. A resumed run first removes the rows after its checkpoint.

    If there are several processes, only the main process writes.
    """

    def __init__(self, directory: Path, config: RunConfig, step: int) -> None:
        self.path = directory / FILE
        kept = [row for row in read(directory) if row["step"] <= step] if step else []
        write_atomically(self.path, "".join(json.dumps(row) + "\n" for row in kept).encode())
        is_main = processes.is_main_process()
        self.file = (self.path if is_main else Path(os.devnull)).open("a", encoding="utf-8")
        self.events = _tensorboard(directory, step) if config.tensorboard and is_main else None
        self.wandb = _wandb(directory, config) if config.wandb and is_main else None
        self.trackio = _trackio(directory, config) if config.trackio and is_main else None

    def write(self, row: Mapping[str, float]) -> None:
        """A value that is not finite is null in the file, because JSON has no such number. The copies omit it."""
        values = {name: value if math.isfinite(value) else None for name, value in row.items()}
        self.file.write(json.dumps(values) + "\n")
        self.file.flush()
        step, finite = row["step"], {name: value for name, value in values.items() if value is not None}
        figures = {name: value for name, value in finite.items() if name != "step"}
        if self.events:
            for name, value in figures.items():
                self.events.add_scalar(name, value, step)
        if self.wandb:
            self.wandb.log(finite, step=step)
        if self.trackio:
            self.trackio.log(figures, step=step)  # it has a step of its own, and reserves the name

    def close(self) -> None:
        self.file.close()
        if self.events:
            self.events.close()
        for run in filter(None, (self.wandb, self.trackio)):
            run.finish()


def _tensorboard(directory: Path, step: int) -> Any:
    from tensorboardX import SummaryWriter

    return SummaryWriter(str(directory / "tensorboard"), purge_step=step + 1)


def _wandb(directory: Path, config: RunConfig) -> Any:
    import wandb  # type: ignore[import-not-found]

    identity, settings = _identity(directory), config.as_json()
    return wandb.init(
        project=config.wandb, name=directory.name, id=identity, resume="allow", dir=directory, config=settings
    )


def _trackio(directory: Path, config: RunConfig) -> Any:
    import trackio  # type: ignore[import-not-found]

    name = f"{directory.name}-{_identity(directory)}"  # a run is found by its name
    return trackio.init(project=config.trackio, name=name, resume="allow", config=config.as_json(), embed=False)


def _identity(directory: Path) -> str:
    """A hash of the full path, so that a resumed run continues its record."""
    return hashlib.sha256(str(directory.resolve()).encode()).hexdigest()[:12]


Write = Callable[[Mapping[str, float]], None]  # takes a row of metrics


class NonFiniteLoss(InputError):
    """The loss or gradient of a step is not finite, and the run stops with the state before this step."""

    def __init__(self, step: int, loss: float, gradient: float, rate: float) -> None:
        self.step = step
        self.what = f"the loss is {loss} and its gradient {gradient} at step {step}, learning rate {rate:g}"
        super().__init__(f"{self.what}; choose a smaller learning rate")


class StepMetrics:
    """The metrics of recent steps, which stay on the devices until they are written.

    Attributes:
        skipped: the number of steps whose loss or gradient was not finite. The schedule does not count them.
    """

    def __init__(self, learning_rate: optax.Schedule, on_nan: str, write: Write, skipped: int = 0) -> None:
        self.skipped = skipped
        self._learning_rate, self._on_nan, self._write = learning_rate, on_nan, write
        self._pending: list[tuple[int, int, Mapping[str, Array]]] = []  # step, tokens read, metrics

    def add(self, step: int, tokens: int, metrics: Mapping[str, Array]) -> None:
        """Adds the metrics of a dispatched step, and waits until the previous step is complete.

        One step ahead keeps the devices busy. With more steps ahead, a stop request would have to wait for all of them.
        """
        self._block()
        self._pending.append((step, tokens, metrics))

    def write(self, began: float) -> tuple[float, float]:
        """Writes a row for each step since the last call. Returns the loss of the last step and the tokens per second.

        `began` is the time.monotonic() at the start of the first of these steps. Raises NonFiniteLoss if a loss or
        gradient is not finite and `on_nan` is "stop".
        """
        self._block()
        speed = sum(tokens for _, tokens, _ in self._pending) / max(time.monotonic() - began, 1e-9)
        loss, before = float(self._pending[-1][2]["loss"]), self.skipped
        for step, _, metrics in self._pending:
            row = {name: float(value) for name, value in metrics.items()}
            rate = float(np.asarray(self._learning_rate(step - 1 - self.skipped)))
            self._write({"step": step} | row | {"learning_rate": rate, "tokens_per_second": round(speed, 1)})
            if not math.isfinite(row["loss"] + row["gradient_norm"]):
                if self._on_nan == "stop":
                    raise NonFiniteLoss(step, row["loss"], row["gradient_norm"], rate)
                self.skipped += 1
        if self.skipped > before:
            first, last, count = self._pending[0][0], self._pending[-1][0], self.skipped - before
            print(f"steps {first} to {last}: {count} skipped because their loss or gradient is not finite")
        self._pending = []
        return loss, speed

    def _block(self) -> None:
        with phase("wait"):
            jax.block_until_ready(self._pending[-1:])


def keep_batch(directory: Path, step: int, batch: TrainBatch) -> Path:
    """Writes the batch of a step to the run directory, and returns the path."""
    path, content = directory / f"nan-step-{step}.npz", io.BytesIO()
    np.savez(content, **{leaf.name: np.asarray(getattr(batch, leaf.name)) for leaf in fields(batch)})  # type: ignore[arg-type]
    write_atomically(path, content.getvalue())
    return path
