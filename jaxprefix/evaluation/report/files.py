"""report.json, statistics.json and report.md, each written whole or not at all; report.json read back."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
    """Write report.json, report.md and, where there are any, statistics.json, replacing older ones."""
    texts = {"report.json": json_text(report)}
    if statistics:
        texts["statistics.json"] = json_text(statistics)
    texts["report.md"] = markdown(report, notes, baseline, statistics)
    for name, text in texts.items():
        write_atomically(directory / name, text.encode())


def json_text(values: Any) -> str:
    """As all JSON files of an evaluation are written: sorted, indented, in UTF-8, without NaN."""
    return json.dumps(values, ensure_ascii=False, sort_keys=True, indent=2, allow_nan=False) + "\n"


def write_output(path: Path, values: Any) -> None:
    """Writes what --output asks for; InputError where that cannot be."""
    try:
        write_atomically(path, json_text(values).encode())
    except OSError as error:
        raise InputError(f"--output {path} cannot be written ({error.strerror}); give another file") from None


def read_report(directory: Path) -> Report:
    """The run's report.json; InputError where there is none, or it is no report."""
    path = directory / "report.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError(f"{directory} has no readable report.json; evaluate that run first") from None
    if not _is_report(found):
        raise InputError(f"{path} is not a report; evaluate that run again")
    return found


def _is_report(found: Any) -> bool:
    """Whether all fields of the form are there."""
    if not isinstance(found, dict) or not set(Report.__annotations__) <= set(found):
        return False
    tasks = found["tasks"]
    return isinstance(tasks, dict) and all(
        isinstance(task, dict) and set(TaskReport.__annotations__) <= set(task) for task in tasks.values()
    )
