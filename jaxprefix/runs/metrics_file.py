"""metrics.jsonl of a run, as others read it. `train.metrics` writes it."""

import json
from pathlib import Path

FILE = "metrics.jsonl"


def read(directory: Path) -> list[dict[str, float]]:
    """The rows that are written so far, without a last line that a crash truncated."""
    path = directory / FILE
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("}\n")]
