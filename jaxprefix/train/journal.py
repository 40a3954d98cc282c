"""metrics.jsonl, one row a step, and its copies for TensorBoard and Weights & Biases."""

import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

from jaxprefix import hosts
from jaxprefix.directory import write_whole
from jaxprefix.run import RunConfig

FILE = "metrics.jsonl"


class Journal:
    """Appends rows {"step": n, ...}; a resumed run first drops the rows behind its checkpoint. Of several processes the
    first one writes."""

    def __init__(self, directory: Path, config: RunConfig, step: int) -> None:
        self.path = directory / FILE
        kept = [row for row in read(directory) if row["step"] <= step] if step else []
        write_whole(self.path, "".join(json.dumps(row) + "\n" for row in kept).encode())
        first = hosts.first()
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
