"""predictions.jsonl: a row a question, with what was asked, what was answered and how it scored."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jaxprefix.evaluation.report import write_whole
from jaxprefix.tasks.task import Example, Task

PREDICTIONS = "predictions.jsonl"

Answers = dict[tuple, dict[str, Any]]  # rows by what they answer


def unanswered(task: Task, example: Example) -> dict[str, Any]:
    """The row of a question that does not fit: wrong, because leaving it out would flatter languages of many tokens."""
    zero = dict.fromkeys(task.metrics, 0.0)
    return description(task, example) | {"prediction": "", "scores": zero, "parse_failure": True}


def description(task: Task, example: Example) -> dict[str, Any]:
    """What is asked, as predictions.jsonl has it."""
    return {
        "task": task.name,
        "language": example.language,
        "id": example.id,
        "prompt": example.prompt,
        "references": list(example.references or (example.response,)),
        "choices": list(example.choices),
    }


def same_question(row: dict[str, Any]) -> tuple:
    """Two rows with equal results ask the same; an id alone is not enough, a user's file may have changed."""
    parts = (row[name] for name in ("task", "language", "id", "prompt"))
    return *parts, tuple(row["references"]), tuple(row["choices"])


def read(directory: Path, step: int) -> Answers:
    """The rows that the adapter of this step has answered."""
    path = directory / PREDICTIONS
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
    return {same_question(row): row for row in rows if row["step"] == step}


def write(directory: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Writes the rows in the place of the older ones."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_whole(directory / PREDICTIONS, text.encode("utf-8"))
