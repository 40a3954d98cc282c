"""Kills trainings at random moments, starts them again, and counts: python kills.py MODEL ROWS FOLDER KILLS SEED.

The parent imports everything and wakes no device; each training is a fork of it, so that a start costs a second or two.
Half of the kills come at any moment, half while a checkpoint is being written. Prints one object of JSON.
"""

import hashlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import small

from jaxprefix.io import checksums
from jaxprefix.models.adapters import PrefixTuning
from jaxprefix.runs.config import RunConfig
from jaxprefix.train import metrics
from jaxprefix.train.loop import train

STEPS = 60


def configuration(model: Path, rows: Path) -> RunConfig:
    """Two methods, with dropout, saved and scored often."""
    config = small.configuration(
        model, rows, method="prefix+lora", steps=STEPS, save_every=5, eval_every=10, log_every=5, keep=2
    )
    return replace(config, lora=replace(config.lora, dropout=0.2), prefix=PrefixTuning(length=3, std=0.5))


def digest(directory: Path) -> str:
    """Of the last checkpoint's adapter and optimizer, bit for bit, and of every metric of every step."""
    found = hashlib.sha256(json.dumps(small.metrics(directory)).encode())
    for item in ("adapter", "optimizer"):
        tree = ocp.StandardCheckpointHandler().restore(directory / "checkpoints" / str(STEPS) / item)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            found.update(jax.tree_util.keystr(path).encode() + np.asarray(leaf).tobytes())
    return found.hexdigest()


def fork(work: Callable[[], Any]) -> int:
    """The id of a process that does this, silently."""
    if child := os.fork():
        return child
    code = 1
    try:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        work()
        code = 0
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    finally:
        os._exit(code)


def run(config: RunConfig, directory: Path) -> int:
    """Trains in a process of its own, which writes the digest when it is done."""

    def work() -> None:
        train(config, directory, quiet=True)
        directory.with_suffix(".digest").write_text(digest(directory))

    return fork(work)


def ended(child: int) -> int | None:
    """The child's exit code once it has ended."""
    found, status = os.waitpid(child, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def moment(draw: random.Random, child: int, directory: Path, longest: float) -> int | None:
    """Waits for the moment to kill; the exit code where the child ends before it."""
    until, in_a_save = time.monotonic() + draw.uniform(0, longest), draw.random() < 0.5
    while time.monotonic() < until:
        if (code := ended(child)) is not None:
            return code
        time.sleep(0.001)
    while in_a_save and not list(directory.glob("checkpoints/*tmp")):
        if (code := ended(child)) is not None:
            return code
        time.sleep(0.0002)
    time.sleep(draw.uniform(0, 0.05) if in_a_save else 0)
    return ended(child)


def uninterrupted(config: RunConfig, directory: Path) -> tuple[float, str]:
    """The seconds that a run takes, and its digest."""
    began = time.monotonic()
    _, status = os.waitpid(run(config, directory), 0)
    assert status == 0
    return time.monotonic() - began, directory.with_suffix(".digest").read_text()


def main(model: Path, rows: Path, folder: Path, kills: int, seed: int) -> dict[str, Any]:
    config, draw = configuration(model, rows), random.Random(seed)
    assert not jax._src.xla_bridge._backends, "a fork of a process whose devices are awake would hang"
    began = time.monotonic()
    _, expected = uninterrupted(config, folder / "first")  # it compiles, for all
    longest, again = uninterrupted(config, folder / "second")
    assert again == expected
    counts = {"kills": 0, "in_a_save": 0, "resumes": 0, "runs": 0, "identical": 0, "unreadable": 0, "failed": 0}
    steps: list[int] = []
    while counts["kills"] < kills:
        directory = folder / f"run-{counts['runs']}"
        code = None
        while code is None and counts["kills"] < kills:
            counts["resumes"] += (directory / "run.json").exists()
            child = run(config, directory)
            if (code := moment(draw, child, directory, longest)) is None:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                counts["kills"] += 1
                counts["in_a_save"] += bool(list(directory.glob("checkpoints/*tmp")))
                steps.append(last_step(directory))
                counts["unreadable"] += unreadable(directory)
                if counts["kills"] % 10 == 0:
                    print(counts, file=sys.stderr, flush=True)
        if code is None:  # the last one is let to its end
            counts["resumes"] += (directory / "run.json").exists()
            _, status = os.waitpid(run(config, directory), 0)
            code = os.waitstatus_to_exitcode(status)
        counts["runs"] += 1
        counts["failed"] += code != 0
        counts["identical"] += code == 0 and directory.with_suffix(".digest").read_text() == expected
    return counts | {"steps": sorted(steps), "seconds": round(time.monotonic() - began)}


def last_step(directory: Path) -> int:
    return max((row["step"] for row in metrics.read(directory)), default=0)


def unreadable(directory: Path) -> int:
    """Checkpoints under a step's name that are not whole."""
    places = [path for path in directory.glob("checkpoints/*") if path.name.isdecimal()]
    return sum(not checksums.exists(place) or checksums.first_mismatch(place) is not None for place in places)


if __name__ == "__main__":
    model, rows, folder, kills, seed = sys.argv[1:]
    print(json.dumps(main(Path(model), Path(rows), Path(folder), int(kills), int(seed))))
