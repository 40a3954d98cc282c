"""metrics.jsonl, one row a step, and its copies for TensorBoard and Weights & Biases.

It says as well what is done about a step whose loss or gradient is not finite.
"""

import hashlib
import io
import json
import math
import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxprefix.distributed import processes
from jaxprefix.errors import InputError
from jaxprefix.io.atomic import write_whole
from jaxprefix.runs.config import RunConfig
from jaxprefix.train.batches import TrainBatch

FILE = "metrics.jsonl"


class Journal:
    """Appends rows {"step": n, ...}; a resumed run first drops the rows behind its checkpoint. Of several processes the
    first one writes."""

    def __init__(self, directory: Path, config: RunConfig, step: int) -> None:
        self.path = directory / FILE
        kept = [row for row in read(directory) if row["step"] <= step] if step else []
        write_whole(self.path, "".join(json.dumps(row) + "\n" for row in kept).encode())
        first = processes.first()
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


class NotFinite(InputError):
    """A step's loss or gradient is not finite, in a run that stops there; its state is that of the step before."""

    def __init__(self, step: int, loss: float, gradient: float, rate: float) -> None:
        self.step = step
        self.what = f"the loss is {loss} and its gradient {gradient} at step {step}, learning rate {rate:g}"
        super().__init__(f"{self.what}; choose a smaller learning rate")


class Figures:
    """What steps came to, kept on the devices until somebody looks."""

    def __init__(self, rate: Callable[[int], Any], on_nan: str, skipped: int = 0) -> None:
        """`rate` is the optimizer's schedule; `skipped` the steps that were skipped so far, which it did not count."""
        self.rate, self.on_nan, self.skipped = rate, on_nan, skipped
        self.waiting: list[tuple[int, int, dict[str, Any]]] = []  # step, tokens read, metrics

    def add(self, step: int, read: int, metrics: dict[str, Any]) -> None:
        """Takes a step that is under way, and waits for the one before it: a step ahead keeps the devices busy, and an
        end that is asked for has not to wait for more."""
        if self.waiting:
            jax.block_until_ready(self.waiting[-1][2])
        self.waiting.append((step, read, metrics))

    def write(self, write: Write, seconds: float) -> float:
        """Writes a row a step; returns tokens per second. Raises NotFinite where a run is to stop."""
        speed = sum(read for _, read, _ in self.waiting) / max(seconds, 1e-9)
        before = self.skipped
        for step, _, metrics in self.waiting:
            row = {name: float(value) for name, value in metrics.items()}
            rate = float(self.rate(step - 1 - self.skipped))
            write({"step": step} | row | {"learning_rate": rate, "tokens_per_second": round(speed, 1)})
            if not math.isfinite(row["loss"] + row["gradient_norm"]):
                if self.on_nan == "stop":
                    raise NotFinite(step, row["loss"], row["gradient_norm"], rate)
                self.skipped += 1
        if self.skipped > before:
            first, last, count = self.waiting[0][0], self.waiting[-1][0], self.skipped - before
            print(f"steps {first} to {last}: {count} skipped, their loss or gradient is not finite")
        self.waiting = []
        return speed


def keep_batch(directory: Path, step: int, batch: TrainBatch) -> Path:
    """Writes what a step was to learn beside the run's other files, and returns where."""
    path, content = directory / f"nan-step-{step}.npz", io.BytesIO()
    np.savez(content, **{each.name: np.asarray(getattr(batch, each.name)) for each in fields(batch)})  # type: ignore[arg-type]
    write_whole(path, content.getvalue())
    return path
