"""predictions.jsonl: one row per question, with the question, the answer and its scores.

Rows are only appended, as the answers arrive. Each has a key, a hash of its question. Among the rows of one step of the
run, the last row of a key counts.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxprefix.distributed import processes
from jaxprefix.errors import InputError
from jaxprefix.io.atomic import write_atomically
from jaxprefix.io.messages import shell
from jaxprefix.io.rows import Row, parse_lines
from jaxprefix.io.strict_json import parse
from jaxprefix.io.values import value_of
from jaxprefix.runs.directory import MAY_CHANGE, RUN_FILE, read_run
from jaxprefix.tasks.task import Example, Task

PREDICTIONS = "predictions.jsonl"
SUPERSEDED = "superseded"  # true in rows that reports exclude, because the task no longer has the question
EVALUATION = "evaluation"  # the hash of the evaluation that computed the row
SELECTION, SPREAD = "selection", "spread"  # how --limit selects rows; rows of earlier versions, the first, lack it
FIT = "fit"  # "whole", "cut" (the context was cut) or "none" (it did not fit, and scores 0)
SHARED = "shared"  # a hash of the text that several questions share
SHOTS, SHOTS_DROPPED = "shots", "shots_dropped"  # ids of the few-shot examples, and how many did not fit

Answers = dict[str, dict[str, Any]]  # rows by key

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
    """The answers of a run's adapter at its current step."""

    def __init__(self, directory: Path, origin: dict[str, Any]) -> None:
        """Reads predictions.jsonl, and removes an incomplete last line that a killed process has left.

        Args:
            directory: the directory of predictions.jsonl, which need not exist yet.
            origin: the result of `origin`, which every appended row includes.

        Raises:
            InputError: a damaged line, or rows of another run or of other settings, which must not be mixed with these.
        """
        self.directory, self.origin, self.path = directory, origin, directory / PREDICTIONS
        content = self.path.read_bytes() if self.path.is_file() else b""
        rows = _read_rows(complete := _complete_lines(content), self.path)
        for row in rows:
            if row["run"] != origin["run"]:
                raise InputError(f"{self.path} holds answers of another run; move it away, or give a new --output")
            if row["step"] == origin["step"] and row["how"] != origin["how"]:
                raise InputError(
                    f"{self.path} was answered with {row['how']}, now {origin['how']}; give a new --output"
                )
        self.rows = _by_key(rows, origin["step"])
        if complete != content:
            write_atomically(self.path, complete)

    def of_language(self, task: str, language: str) -> list[dict[str, Any]]:
        """The answers to current questions of a language."""
        rows = self.rows.values()
        return [row for row in rows if (row["task"], row["language"]) == (task, language) and SUPERSEDED not in row]

    def append(self, rows: Sequence[dict[str, Any]]) -> None:
        """Appends the rows to the file. Of several processes, only the main one writes."""
        self.rows |= {row["key"]: row for row in rows}
        if not processes.is_main_process():
            return
        with self.path.open("ab") as file:
            file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())


def read_answered(directory: Path) -> Answers:
    """The rows of the last evaluated step, without superseded ones.

    InputError if there is no file, or if it belongs to another run than the directory.
    """
    path = directory / PREDICTIONS
    if not path.is_file():
        raise InputError(
            f"{directory} has no {PREDICTIONS}; evaluate it: python -m jaxprefix.evaluation {shell(directory)}"
        )
    rows = _read_rows(_complete_lines(path.read_bytes()), path)
    last = _by_key(rows, max((row["step"] for row in rows), default=0))
    current = {key: row for key, row in last.items() if not row.get(SUPERSEDED)}
    if not current:
        raise InputError(f"{path} has no answers to current questions; evaluate again")
    run = _run_hash(read_run(directory)) if (directory / RUN_FILE).is_file() else rows[0]["run"]
    if any(row["run"] != run for row in rows):
        raise InputError(f"{path} holds answers of another run; move it away and evaluate again")
    return current


def unanswered(task: Task, example: Example) -> dict[str, Any]:
    """The row of a question that does not fit. It scores 0: omitting it would favour languages of many tokens."""
    norms = () if task.max_new_tokens else tuple(f"{name}_norm" for name in task.metrics)
    zero = dict.fromkeys((*task.metrics, *norms), 0.0)
    result = {"prediction": "", "answer": "", "scores": zero, "parse_failure": False, FIT: "none"}
    return description(task, example) | result


def description(task: Task, example: Example) -> dict[str, Any]:
    """The fields of the question in predictions.jsonl, its key, and the hash of the text that it shares with others."""
    question = {
        "task": task.name,
        "language": example.language,
        "id": example.id,
        "prompt": example.prompt,
        "references": list(example.references or (example.response,)),
        "choices": list(example.choices),
    }
    shared = {SHARED: digest(example.shared)} if example.shared else {}
    return question | {"key": _key(question)} | shared


def _key(row: Mapping[str, Any]) -> str:
    """A hash of the whole question. An id alone is not enough, because a user's file may change."""
    return digest([row[name] for name in QUESTION])


def digest(values: object) -> str:
    """A short hash of JSON values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def origin(run_json: Mapping[str, Any], step: int, how: str) -> dict[str, Any]:
    """The origin of a row: a hash of the run, its step, the settings `how` of the evaluation, and its selection."""
    return {"run": _run_hash(run_json), "step": step, "how": how, SELECTION: SPREAD}


def _run_hash(run_json: Mapping[str, Any]) -> str:
    config = {name: value for name, value in run_json["config"].items() if name not in MAY_CHANGE}
    return digest([config, run_json["base"], run_json["rows"]])


def _by_key(rows: Iterable[Row], step: int) -> Answers:
    return {row["key"]: row for row in rows if row["step"] == step}


def _complete_lines(content: bytes) -> bytes:
    """The content without an incomplete last line. A last line that lacks only its line break gets one."""
    last = content[content.rfind(b"\n") + 1 :]
    try:
        parse(last)
    except InputError:
        return content.removesuffix(last)
    return content + b"\n"


def _read_rows(content: bytes, path: Path) -> list[Row]:
    """The rows of a file, with their keys; InputError, which names the line, if a row is damaged."""
    try:
        return [_with_key(row) for row in parse_lines(content, path)]
    except InputError as error:
        raise InputError(f"{error}; restore the file, or move it away and evaluate again") from None


def _with_key(row: Row) -> Row:
    """The row, checked, with its key."""
    for name, kind in FIELDS.items():
        value_of(row, name, kind, f"{row.location}: ")
    if not row["scores"]:
        raise InputError(f"{row.location}: scores is empty; expected at least one")
    for name, value in row["scores"].items():
        if not isinstance(value, int | float) or not 0 <= value <= 1:
            raise InputError(f"{row.location}: the score {name} is {value!r:.60}, expected 0..1")
    row["key"] = _key(row)
    return row
