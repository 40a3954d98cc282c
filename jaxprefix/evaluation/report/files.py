"""Writes report.json, statistics.json and report.md, each atomically, and reads report.json."""

import json
from collections.abc import Mapping
from pathlib import Path

from jaxprefix.errors import InputError
from jaxprefix.evaluation.report.intervals import Statistics
from jaxprefix.evaluation.report.markdown import markdown
from jaxprefix.evaluation.report.summary import Report, TaskReport
from jaxprefix.io.atomic import write_atomically


def write(
    report: Report,
    notes: Mapping[str, str],
    directory: Path,
    baseline: Report | None = None,
    statistics: Statistics | None = None,
) -> None:
    """Writes report.json, report.md and, with `statistics`, statistics.json. Older files are replaced."""
    texts = {"report.json": json_text(report)}
    if statistics:
        texts["statistics.json"] = json_text(statistics)
    texts["report.md"] = markdown(report, notes, baseline, statistics)
    for name, text in texts.items():
        write_atomically(directory / name, text.encode())


def json_text(values: object) -> str:
    """The form of every JSON file of an evaluation: sorted, indented, in UTF-8, without NaN."""
    return json.dumps(values, ensure_ascii=False, sort_keys=True, indent=2, allow_nan=False) + "\n"


def write_output(path: Path, values: object) -> None:
    """Writes the JSON file of --output; InputError if that fails."""
    try:
        write_atomically(path, json_text(values).encode())
    except OSError as error:
        raise InputError(f"could not write --output {path}: {error.strerror}; give another file") from None


def read_report(directory: Path) -> Report:
    """The run's report.json; InputError if there is none, or if it is not a report."""
    path = directory / "report.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError(f"{directory} has no readable report.json; evaluate that run first") from None
    if not _is_report(values):
        raise InputError(f"{path} is not a report; evaluate that run again")
    return values


def _is_report(values: object) -> bool:
    """Whether all fields of a report are present."""
    if not isinstance(values, dict) or not Report.__required_keys__ <= set(values):
        return False
    tasks = values["tasks"]
    return isinstance(tasks, dict) and all(
        isinstance(task, dict) and set(TaskReport.__annotations__) <= set(task) for task in tasks.values()
    )
