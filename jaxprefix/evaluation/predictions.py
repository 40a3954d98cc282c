"""predictions.jsonl: a row a question, with what was asked, what was answered and how it scored.

While an evaluation goes on its rows are appended to unfinished.jsonl, behind a line that names its plan: the same
command goes on from there, and another one keeps what it has answered.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxprefix.errors import InputError
from jaxprefix.io.atomic import write_whole
from jaxprefix.io.rows import Row, parse_lines
from jaxprefix.runs.directory import MAY_DIFFER, RUN_FILE, read_run
from jaxprefix.tasks.task import Example, Task

PREDICTIONS = "predictions.jsonl"
UNFINISHED = "unfinished.jsonl"
SUPERSEDED = "superseded"  # true in rows that are kept and are in no report: the task asks something else by now

Answers = dict[tuple, dict[str, Any]]  # rows by what they answer

KINDS = {str: "a text", int: "a whole number", bool: "true or false", list: "a list", dict: "an object"}
FIELDS: Mapping[str, type] = {
    "task": str,
    "language": str,
    "id": str,
    "prompt": str,
    "references": list,
    "choices": list,
    "prediction": str,
    "scores": dict,
    "parse_failure": bool,
    "run": str,
    "step": int,
    "how": str,
}


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


def same_question(row: Mapping[str, Any]) -> tuple:
    """Two rows with equal results ask the same; an id alone is not enough, a user's file may have changed."""
    parts = (row[name] for name in ("task", "language", "id", "prompt"))
    return *parts, tuple(row["references"]), tuple(row["choices"])


def origin(described: Mapping[str, Any], step: int, how: str) -> dict[str, Any]:
    """What every row says of where it comes from: the run (a hash of what it is), its step, and how it was asked."""
    return {"run": _run(described), "step": step, "how": how}


def _run(described: Mapping[str, Any]) -> str:
    own = {name: value for name, value in described["config"].items() if name not in MAY_DIFFER}
    text = json.dumps([own, described["base"], described["rows"]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read(directory: Path, origin: Mapping[str, Any]) -> Answers:
    """The rows of predictions.jsonl that the adapter of this step has answered.

    InputError where they are another run's, or were asked in another way: they would be lost, or mixed with these.
    """
    path = directory / PREDICTIONS
    return _own(_rows(path.read_bytes(), path), path, origin) if path.is_file() else {}


def read_answered(directory: Path) -> list[Row]:
    """The rows of the last step that was evaluated, whatever it is, without those that are superseded.

    InputError where there is no file, or not of the run that the directory holds.
    """
    path = directory / PREDICTIONS
    if not path.is_file():
        raise InputError(f"{directory} has no {PREDICTIONS}; evaluate it: python -m jaxprefix.evaluation {directory}")
    rows = _rows(path.read_bytes(), path)
    if not rows:
        raise InputError(f"{path} is empty; evaluate again")
    own = _run(read_run(directory)) if (directory / RUN_FILE).is_file() else rows[0]["run"]
    if any(row["run"] != own for row in rows):
        raise InputError(f"{path} holds answers of another run; move it away and evaluate again")
    last = max(row["step"] for row in rows)
    return [row for row in rows if row["step"] == last and not row.get(SUPERSEDED)]


def _own(rows: Sequence[Row], path: Path, origin: Mapping[str, Any]) -> Answers:
    for row in rows:
        if row["run"] != origin["run"]:
            raise InputError(f"{path} holds answers of another run; move it away, or give a new --output")
        if row["step"] == origin["step"] and row["how"] != origin["how"]:
            raise InputError(f"{path} was asked with {row['how']}, now {origin['how']}; give a new --output")
    return {same_question(row): row for row in rows if row["step"] == origin["step"]}


def _rows(content: bytes, path: Path) -> list[Row]:
    """The rows of a file's content, each with all that it must have; InputError for any damage, by its line."""
    try:
        return [_checked(row) for row in parse_lines(content, path)]
    except InputError as error:
        raise InputError(f"{error}; restore the file, or move it away and evaluate again") from None


def _checked(row: Row) -> Row:
    for name, kind in FIELDS.items():
        if not isinstance(row.get(name), kind):
            given = repr(row[name]) if name in row else "nothing"
            raise InputError(f"{row.where}: {name} is {given:.60}, expected {KINDS[kind]}")
    if not row["scores"]:
        raise InputError(f"{row.where}: it has no scores")
    for name, value in row["scores"].items():
        if not isinstance(value, int | float) or not 0 <= value <= 1:
            raise InputError(f"{row.where}: its score {name} is {value!r:.60}, expected 0..1")
    return row


def write(directory: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes predictions.jsonl in the place of the older one, and ends what was unfinished."""
    write_whole(directory / PREDICTIONS, "".join(map(_line, rows)).encode("utf-8"))
    (directory / UNFINISHED).unlink(missing_ok=True)


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def unfinished(directory: Path, origin: Mapping[str, Any]) -> tuple[str | None, Answers]:
    """The plan of an evaluation that was interrupted, None where there was none, and the rows that it has answered."""
    path = directory / UNFINISHED
    if not path.is_file():
        return None, {}
    first, _, rest = path.read_bytes().partition(b"\n")
    whole = b"\n" + rest[: rest.rfind(b"\n") + 1]  # the last line may have been cut off
    return _plan(first, path), _own(_rows(whole, path), path, origin)


def _plan(line: bytes, path: Path) -> str:
    try:
        return json.loads(line)["plan"]
    except (ValueError, TypeError, KeyError):
        raise InputError(f"{path}:1 names no plan; restore the file, or move it away and evaluate again") from None


def begin(directory: Path, plan: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Begins unfinished.jsonl anew, with the rows that are answered already."""
    write_whole(directory / UNFINISHED, "".join(map(_line, [{"plan": plan}, *rows])).encode("utf-8"))


def append(directory: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Adds rows to unfinished.jsonl; what is written so is read again after a kill."""
    with (directory / UNFINISHED).open("a", encoding="utf-8") as file:
        file.write("".join(map(_line, rows)))
