"""From prediction rows to report.json, report.md and tables: per language, the mean of the others, the gap."""

import json
import math
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from rich.table import Table
from rich.text import Text

MISSING = "–"


class TaskReport(TypedDict):
    """One task's part of report.json; every score is a mean in 0..1."""

    metrics: list[str]  # the first is the headline
    languages: dict[str, dict[str, float]]  # code -> {metric: mean, ..., "n": rows, "parse_failure_rate": share}
    source: dict[str, Any] | None  # the source language's row and its code as "language"; None where not evaluated
    mean_others: dict[str, float] | None  # over languages, each counting alike; None where there is no other
    gap: dict[str, float] | None  # source - mean_others


class Report(TypedDict):
    """The whole of report.json."""

    model: str
    method: str
    source: str
    tasks: dict[str, TaskReport]


def _mean(values: Iterable[float]) -> float:
    """The mean in float64, its sum free of rounding (fsum), so that the order of rows does not matter."""
    values = [float(value) for value in values]
    return math.fsum(values) / len(values)


def _score(row: Mapping[str, Any], metric: str) -> float:
    """One row's value of a metric; ValueError where it is absent or not in 0..1 (NaN is not)."""
    value = row["scores"].get(metric)
    if value is None or not 0.0 <= value <= 1.0:
        raise ValueError(
            f"prediction {row['id']!r} ({row['language']}) has {metric} = {value}, expected 0..1: evaluate again"
        )
    return float(value)


def _language(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> dict[str, float]:
    """The scores of one language's rows."""
    scores = {metric: _mean(_score(row, metric) for row in rows) for metric in metrics}
    return {**scores, "n": len(rows), "parse_failure_rate": _mean(row["parse_failure"] for row in rows)}


def summarise(rows: Iterable[Mapping[str, Any]], metrics: Sequence[str], source: str) -> TaskReport:
    """One task's scores per language, from rows as predictions.jsonl has them.

    Args:
        rows: of one task, in any order; `language`, `scores` and `parse_failure` are read.
        metrics: names in `scores`; the first is the headline.
        source: the language that was trained on, by this task's code for it ("en", "eng_Latn").

    Raises:
        ValueError: no rows, or a score that is absent or outside 0..1.
    """
    by_language: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        by_language[row["language"]].append(row)
    if not by_language:
        raise ValueError("there are 0 predictions to report, expected at least one: look at --languages and --limit")
    languages = {code: _language(by_language[code], metrics) for code in sorted(by_language)}
    others = [scores for code, scores in languages.items() if code != source]
    mean_others = {metric: _mean(scores[metric] for scores in others) for metric in metrics} if others else None
    at_source = languages.get(source)
    gap = None
    if at_source and mean_others:
        gap = {metric: at_source[metric] - mean_others[metric] for metric in metrics}
    return TaskReport(
        metrics=list(metrics),
        languages=languages,
        source={"language": source, **at_source} if at_source else None,
        mean_others=mean_others,
        gap=gap,
    )


def build(model: str, method: str, source: str, tasks: Mapping[str, TaskReport]) -> Report:
    """The whole report; `source` is the training language, `tasks` maps a task's name to its `summarise`."""
    return Report(model=model, method=method, source=source, tasks=dict(tasks))


def source_language(task: TaskReport) -> str | None:
    """The task's code of the source language, None where that was not evaluated."""
    return task["source"]["language"] if task["source"] else None


def baseline_scores(task: TaskReport, baseline: TaskReport | None) -> dict[str, float]:
    """The baseline's headline metric for those of the task's languages that it has."""
    rows = baseline["languages"] if baseline else {}
    headline = task["metrics"][0]
    return {code: rows[code][headline] for code in task["languages"] if headline in rows.get(code, {})}


def _baseline_summary(task: TaskReport, baseline: TaskReport | None) -> tuple[float | None, float | None]:
    """The baseline's mean of the others and gap; None unless it has every language that the task's own figure has."""
    scores = baseline_scores(task, baseline)
    source = source_language(task)
    others = [code for code in task["languages"] if code != source]
    if not others or any(code not in scores for code in others):
        return None, None
    mean = _mean(scores[code] for code in others)
    return mean, scores[source] - mean if source in scores else None


def _percent(value: float | None) -> str:
    return MISSING if value is None else f"{100 * value:.1f}"


def _points(value: float | None) -> str:
    return MISSING if value is None else f"{100 * value:+.1f}"


def _cells(task: TaskReport, baseline: TaskReport | None) -> tuple[list[str], list[list[str]], list[list[str]]]:
    """A table's texts: header, one line a language (the source first), and the closing lines."""
    metrics, source = task["metrics"], source_language(task)
    compared = baseline_scores(task, baseline)
    compared_mean, compared_gap = _baseline_summary(task, baseline)

    def beside(text: str) -> list[str]:
        return [text] if baseline else []

    header = ["language", *(f"{metric} %" for metric in metrics), *beside(f"baseline {metrics[0]} %")]
    header += ["rows", "unparsed %"]
    lines = []
    for code in sorted(task["languages"], key=lambda code: (code != source, code)):
        scores = task["languages"][code]
        line = [f"{code} (source)" if code == source else code, *(_percent(scores[metric]) for metric in metrics)]
        line += [*beside(_percent(compared.get(code))), str(scores["n"]), _percent(scores["parse_failure_rate"])]
        lines.append(line)
    mean, gap = task["mean_others"] or {}, task["gap"] or {}
    others = [scores for code, scores in task["languages"].items() if code != source]
    unparsed = _mean(scores["parse_failure_rate"] for scores in others) if others else None
    mean_line = [
        "mean of others",
        *(_percent(mean.get(metric)) for metric in metrics),
        *beside(_percent(compared_mean)),
    ]
    mean_line += [str(sum(int(scores["n"]) for scores in others)), _percent(unparsed)]
    gap_line = ["gap", *(_points(gap.get(metric)) for metric in metrics), *beside(_points(compared_gap)), "", ""]
    return header, lines, [mean_line, gap_line]


def _task(baseline: Report | None, name: str) -> TaskReport | None:
    return baseline["tasks"].get(name) if baseline else None


def table(report: Report, baseline: Report | None = None) -> list[Table]:
    """One table a task for the terminal: percent, the source language first, the others' mean and the gap last."""
    tables = []
    for name, task in report["tasks"].items():
        header, lines, closing = _cells(task, _task(baseline, name))
        # Text, not str: a bracket in a name is no markup.
        result = Table(title=Text(f"{name}: {report['model']}, {report['method']}"))
        for column, title in enumerate(header):
            result.add_column(Text(title), justify="right" if column else "left", no_wrap=not column)
        for line in lines:
            result.add_row(*map(Text, line))
        result.add_section()
        for line in closing:
            result.add_row(*map(Text, line), style="bold")
        tables.append(result)
    return tables


def _escape(text: str) -> str:
    """Text that GitHub's markdown shows as it is, on one line; an underscore inside a word needs no escape."""
    text = re.sub(r"([\\`*\[\]<>|~&$])", r"\\\1", " ".join(text.split()))
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)


def _markdown_line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def markdown(report: Report, notes: Mapping[str, str], baseline: Report | None = None) -> str:
    """The text of report.md: the same tables, each with its task's note where `notes` has one under the task's name."""
    text = [f"# {_escape(report['model'])}: {_escape(report['method'])}", ""]
    text += [f"Trained on: {_escape(report['source'])}. Scores are in percent. The mean counts every language alike;"]
    text += ["the gap is the source language's score minus the mean of the others, in points.", ""]
    if baseline:
        text += [f"Baseline: {_escape(baseline['model'])}, {_escape(baseline['method'])}.", ""]
    for name, task in report["tasks"].items():
        header, lines, closing = _cells(task, _task(baseline, name))
        text += [f"## {_escape(name)}", "", _markdown_line(map(_escape, header))]
        text += [_markdown_line(["---", *["---:"] * (len(header) - 1)])]
        text += [_markdown_line(map(_escape, line)) for line in lines]
        text += [_markdown_line(f"**{_escape(cell)}**" if cell else "" for cell in line) for line in closing]
        text += ["", _escape(notes[name]), ""] if notes.get(name) else [""]
    return "\n".join(text).rstrip("\n") + "\n"


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that whoever reads it sees all of the old content or all of the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write(report: Report, notes: Mapping[str, str], directory: Path, baseline: Report | None = None) -> None:
    """Write report.json and report.md into the directory, replacing older ones."""
    text = json.dumps(report, ensure_ascii=False, sort_keys=True, indent=2, allow_nan=False) + "\n"
    write_whole(directory / "report.json", text.encode())
    write_whole(directory / "report.md", markdown(report, notes, baseline).encode())
