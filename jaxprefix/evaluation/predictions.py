"""predictions.jsonl: a row a question, with what was asked, what was answered and how it scored.

While an evaluation goes on its rows are appended to unfinished.jsonl, behind a line that names its plan: the same
command goes on from there, and another one keeps what it has answered.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jaxprefix.directory import MAY_DIFFER
from jaxprefix.evaluation.report import write_whole
from jaxprefix.tasks.task import Example, Task

PREDICTIONS = "predictions.jsonl"
UNFINISHED = "unfinished.jsonl"

Answers = dict[tuple, dict[str, Any]]  # rows by what they answer


def unanswered(task: Task, example: Example) -> dict[str, Any]:
    """The row of a question that does not fit: wrong, because leaving it out would flatter languages of many tokens."""
    norms = () if task.max_new_tokens else tuple(f"{name}_norm" for name in task.metrics)
    zero = dict.fromkeys((*task.metrics, *norms), 0.0)
    return description(task, example) | {"prediction": "", "answer": "", "scores": zero, "parse_failure": True}


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


def origin(described: dict[str, Any], step: int, how: str) -> dict[str, Any]:
    """What every row says of where it comes from: the run (a hash of what it is), its step, and how it was asked."""
    own = {name: value for name, value in described["config"].items() if name not in MAY_DIFFER}
    text = json.dumps([own, described["base"], described["rows"]], sort_keys=True)
    return {"run": hashlib.sha256(text.encode()).hexdigest()[:16], "step": step, "how": how}


def read(directory: Path, origin: dict[str, Any]) -> Answers:
    """The rows of predictions.jsonl that the adapter of this step has answered.

    ValueError where they are another run's, or were asked in another way: they would be lost, or mixed with these.
    """
    return _own(_rows(directory / PREDICTIONS), directory / PREDICTIONS, origin)


def _own(rows: Sequence[dict[str, Any]], path: Path, origin: dict[str, Any]) -> Answers:
    for row in rows:
        if row.get("run") != origin["run"]:
            raise ValueError(f"{path} holds answers of another run; move it away, or give a new --output")
        if row["step"] == origin["step"] and row["how"] != origin["how"]:
            raise ValueError(f"{path} was asked with {row['how']}, now {origin['how']}; give a new --output")
    return {same_question(row): row for row in rows if row["step"] == origin["step"]}


def _rows(path: Path) -> list[dict[str, Any]]:
    """The objects of a .jsonl file, without a last line that was cut off; ValueError for any other damage."""
    lines = path.read_bytes().split(b"\n")[:-1] if path.is_file() else []
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or ("plan" not in row and not {"step", "how"} <= set(row)):
                raise ValueError("no row of predictions")
            rows.append(row)
        except ValueError as error:
            raise ValueError(f"{path}:{number} is damaged ({error}); restore it or move it away") from None
    return rows


def write(directory: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Writes predictions.jsonl in the place of the older one, and ends what was unfinished."""
    write_whole(directory / PREDICTIONS, "".join(map(_line, rows)).encode("utf-8"))
    (directory / UNFINISHED).unlink(missing_ok=True)


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def unfinished(directory: Path, origin: dict[str, Any]) -> tuple[str | None, Answers]:
    """The plan of an evaluation that was interrupted, None where there was none, and the rows that it has answered."""
    path = directory / UNFINISHED
    head, *rows = _rows(path) or [{"plan": None}]
    return head["plan"], _own(rows, path, origin)


def begin(directory: Path, plan: str, rows: Iterable[dict[str, Any]]) -> None:
    """Begins unfinished.jsonl anew, with the rows that are answered already."""
    write_whole(directory / UNFINISHED, "".join(map(_line, [{"plan": plan}, *rows])).encode("utf-8"))


def append(directory: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Adds rows to unfinished.jsonl; what is written so is read again after a kill."""
    with (directory / UNFINISHED).open("a", encoding="utf-8") as file:
        file.write("".join(map(_line, rows)))
