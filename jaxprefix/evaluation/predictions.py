"""predictions.jsonl: one row per question, with what was asked, what was answered and how it scored.

Rows are only appended, while the answers come. Each has a key, a hash of its question. The last row of a key counts,
among the rows of one step of the run.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxprefix.errors import InputError
from jaxprefix.io.atomic import write_atomically
from jaxprefix.io.rows import Row, parse_lines
from jaxprefix.io.strict_json import parse
from jaxprefix.io.values import value_of
from jaxprefix.runs.directory import MAY_CHANGE, RUN_FILE, read_run
from jaxprefix.tasks.task import Example, Task

PREDICTIONS = "predictions.jsonl"
SUPERSEDED = "superseded"  # true in rows that are in no report: the task asks something else by now
EVALUATION = "evaluation"  # which evaluation answered the row

Answers = dict[str, dict[str, Any]]  # rows by their key

QUESTION: Mapping[str, type] = {
    "task": str,
    "language": str,
    "id": str,
    "prompt": str,
    "references": list,
    "choices": list,
}
FIELDS: Mapping[str, type] = {
    **QUESTION,
    "prediction": str,
    "scores": dict,
    "parse_failure": bool,
    "run": str,
    "step": int,
    "how": str,
}


class Predictions:
    """What a run's adapter has answered at its step."""

    def __init__(self, directory: Path, origin: dict[str, Any]) -> None:
        """Reads the directory's predictions.jsonl, and removes a last line that a kill has cut off.

        Args:
            directory: may have no such file yet.
            origin: see `origin`; every row that is appended has it.

        Raises:
            InputError: rows of another run, or asked in another way, which these must not mix with; a damaged line.
        """
        self.directory, self.origin, self.path = directory, origin, directory / PREDICTIONS
        content = self.path.read_bytes() if self.path.is_file() else b""
        rows = _rows(whole := _whole_lines(content), self.path)
        for row in rows:
            if row["run"] != origin["run"]:
                raise InputError(f"{self.path} holds answers of another run; move it away, or give a new --output")
            if row["step"] == origin["step"] and row["how"] != origin["how"]:
                raise InputError(f"{self.path} was asked with {row['how']}, now {origin['how']}; give a new --output")
        self.rows = _by_key(rows, origin["step"])
        if whole != content:
            write_atomically(self.path, whole)

    def append(self, rows: Sequence[dict[str, Any]]) -> None:
        """Writes the rows behind those that are there."""
        self.rows |= {row["key"]: row for row in rows}
        with self.path.open("ab") as file:
            file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())


def read_answered(directory: Path) -> Answers:
    """The rows of the last step that was evaluated, without those that are superseded.

    InputError where there is no file, or not of the run that the directory holds.
    """
    path = directory / PREDICTIONS
    if not path.is_file():
        raise InputError(f"{directory} has no {PREDICTIONS}; evaluate it: python -m jaxprefix.evaluation {directory}")
    rows = _rows(_whole_lines(path.read_bytes()), path)
    last = _by_key(rows, max((row["step"] for row in rows), default=0))
    found = {key: row for key, row in last.items() if not row.get(SUPERSEDED)}
    if not found:
        raise InputError(f"{path} holds no answer that counts; evaluate again")
    own = _run(read_run(directory)) if (directory / RUN_FILE).is_file() else rows[0]["run"]
    if any(row["run"] != own for row in rows):
        raise InputError(f"{path} holds answers of another run; move it away and evaluate again")
    return found


def unanswered(task: Task, example: Example) -> dict[str, Any]:
    """The row of a question that does not fit: wrong, because leaving it out would flatter languages of many tokens."""
    norms = () if task.max_new_tokens else tuple(f"{name}_norm" for name in task.metrics)
    zero = dict.fromkeys((*task.metrics, *norms), 0.0)
    return description(task, example) | {"prediction": "", "answer": "", "scores": zero, "parse_failure": True}


def description(task: Task, example: Example) -> dict[str, Any]:
    """The question as predictions.jsonl has it, and its key."""
    question = {
        "task": task.name,
        "language": example.language,
        "id": example.id,
        "prompt": example.prompt,
        "references": list(example.references or (example.response,)),
        "choices": list(example.choices),
    }
    return question | {"key": _key(question)}


def _key(row: Mapping[str, Any]) -> str:
    """Of the whole question: an id alone is not enough, because a user's file may have changed."""
    return digest([row[name] for name in QUESTION])


def digest(values: Any) -> str:
    """A short hash of values that JSON can hold."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def origin(described: Mapping[str, Any], step: int, how: str) -> dict[str, Any]:
    """Where a row comes from: the run (a hash of what it is), its step, and how it was asked."""
    return {"run": _run(described), "step": step, "how": how}


def _run(described: Mapping[str, Any]) -> str:
    own = {name: value for name, value in described["config"].items() if name not in MAY_CHANGE}
    return digest([own, described["base"], described["rows"]])


def _by_key(rows: Iterable[Row], step: int) -> Answers:
    return {row["key"]: row for row in rows if row["step"] == step}


def _whole_lines(content: bytes) -> bytes:
    """Without a last line that was cut off. A last line that lacks only its line break is given one."""
    last = content[content.rfind(b"\n") + 1 :]
    try:
        parse(last)
    except InputError:
        return content.removesuffix(last)
    return content + b"\n"


def _rows(content: bytes, path: Path) -> list[Row]:
    """The rows of a file's content, each with all that it must have; InputError for any damage, by its line."""
    try:
        return [_checked(row) for row in parse_lines(content, path)]
    except InputError as error:
        raise InputError(f"{error}; restore the file, or move it away and evaluate again") from None


def _checked(row: Row) -> Row:
    for name, kind in FIELDS.items():
        value_of(row, name, kind, f"{row.location}: ")
    if not row["scores"]:
        raise InputError(f"{row.location}: it has no scores")
    for name, value in row["scores"].items():
        if not isinstance(value, int | float) or not 0 <= value <= 1:
            raise InputError(f"{row.location}: its score {name} is {value!r:.60}, expected 0..1")
    row["key"] = _key(row)
    return row
