"""What a reader of the scores must know: how the questions were asked, and which figures are of different ones."""

from collections.abc import Mapping

from jaxprefix.evaluation.report import Report, TaskReport
from jaxprefix.tasks.task import Task


def notes(report: Report, known: Mapping[str, Task], how: str, baseline: Report | None) -> dict[str, str]:
    """For each task of the report, as report.md says it."""
    found = {}
    for name, task in report["tasks"].items():
        own = [known[name].note] if name in known and known[name].note else []
        found[name] = " ".join([*own, f"Asked with {how}.", *cautions(task, _of(baseline, name))])
    return found


def all_cautions(report: Report, baseline: Report | None) -> list[str]:
    """A line each, for the terminal."""
    return [f"{name}: {text}" for name, task in report["tasks"].items() for text in cautions(task, _of(baseline, name))]


def cautions(task: TaskReport, baseline: TaskReport | None) -> list[str]:
    """Where languages, or the baseline, have answered other numbers of rows: a smaller --limit, or an older one."""
    counts, found = _counts(task), []
    few, many = min(counts, key=lambda code: counts[code]), max(counts, key=lambda code: counts[code])
    if counts[few] < counts[many]:
        ends = f"{counts[few]:,} ({few}) to {counts[many]:,} ({many})"
        found.append(f"Languages have {ends} rows: their scores are not of the same questions.")
    others = _counts(baseline) if baseline else {}
    if differ := [code for code, count in counts.items() if others.get(code, count) != count]:
        shown = ", ".join(differ[:5]) + (", ..." if differ[5:] else "")
        found.append(f"The baseline has other numbers of rows in {shown}: its scores are not of the same questions.")
    return found


def _of(report: Report | None, name: str) -> TaskReport | None:
    return report["tasks"].get(name) if report else None


def _counts(task: TaskReport) -> dict[str, int]:
    return {code: int(scores["n"]) for code, scores in task["languages"].items()}
