"""The figures of the steps, read late and written down; and what becomes of one that is not finite."""

import io
import math
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxprefix.directory import write_whole
from jaxprefix.train.data import TrainBatch

Write = Callable[[dict[str, Any]], None]  # takes a row of metrics


class NotFinite(ValueError):
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
