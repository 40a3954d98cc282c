"""Notes on the scores: the settings of the evaluation, and figures that are not of the same questions."""

from collections.abc import Mapping

from jaxprefix.evaluation.predictions import SHOTS_DROPPED
from jaxprefix.evaluation.report import Report, TaskReport
from jaxprefix.tasks.task import Task


def notes(report: Report, known: Mapping[str, Task], baseline: Report | None) -> dict[str, str]:
    """The note on each task in report.md."""
    texts = {}
    for name, task in report["tasks"].items():
        note = [known[name].note] if name in known and known[name].note else []
        how = [f"Evaluated with {report['how']}."] if "how" in report else []
        texts[name] = " ".join([*note, *how, *cautions(task, _task_report(baseline, name)), *_differ(report, baseline)])
    return texts


def all_cautions(report: Report, baseline: Report | None) -> list[str]:
    """The cautions of all tasks, as lines for the terminal."""
    return _differ(report, baseline) + [
        f"{name}: {text}"
        for name, task in report["tasks"].items()
        for text in cautions(task, _task_report(baseline, name))
    ]


def how_they_differ(reports: Mapping[str, Report]) -> str | None:
    """A sentence, if the reports (by a name in the sentence) were evaluated with different settings."""
    hows = {name: report["how"] for name, report in reports.items() if "how" in report}
    if len(set(hows.values())) < 2:
        return None
    return f"The settings differ: {'; '.join(f'{name} {how}' for name, how in hows.items())}."


def _differ(report: Report, baseline: Report | None) -> list[str]:
    text = how_they_differ({"this run has": report, "the baseline": baseline}) if baseline else None
    return [text] if text else []


def cautions(task: TaskReport, baseline: TaskReport | None) -> list[str]:
    """Sentences about unequal numbers of rows, among the languages or between them and the baseline, and about what did
    not fit.
    """
    counts, texts = _counts(task), []
    few, many = min(counts, key=lambda code: counts[code]), max(counts, key=lambda code: counts[code])
    if counts[few] < counts[many]:
        ends = f"{counts[few]:,} ({few}) to {counts[many]:,} ({many})"
        texts.append(f"Languages have {ends} rows: their scores are not of the same questions.")
    others = _counts(baseline) if baseline else {}
    if differ := [code for code, count in counts.items() if others.get(code, count) != count]:
        codes = ", ".join(differ[:5]) + (", ..." if differ[5:] else "")
        texts.append(f"The baseline has other numbers of rows in {codes}: its scores are not of the same questions.")
    if cut := _shares(task, "cut"):
        cure = "Languages of many tokens lose more; a larger --max-length and a new --output keep them whole."
        texts.append(f"Contexts that were cut to fit: {cut}. {cure}")
    if too_long := _shares(task, "too_long"):
        texts.append(f"Questions that did not fit and score 0: {too_long}. A larger --max-length answers them.")
    dropped = {code: int(scores.get(SHOTS_DROPPED, 0)) for code, scores in task["languages"].items()}
    if any(dropped.values()):
        counts_by_language = ", ".join(f"{code} {count:,}" for code, count in dropped.items() if count)
        texts.append(f"Few-shot examples that did not fit and were dropped: {counts_by_language}.")
    return texts


def _shares(task: TaskReport, name: str) -> str:
    """A count of rows as "de 10 of 20, zh 3 of 20", for the languages where it is not 0."""
    rows = task["languages"].items()
    return ", ".join(f"{code} {scores[name]:,.0f} of {scores['n']:,.0f}" for code, scores in rows if scores.get(name))


def _task_report(report: Report | None, name: str) -> TaskReport | None:
    return report["tasks"].get(name) if report else None


def _counts(task: TaskReport) -> dict[str, int]:
    return {code: int(scores["n"]) for code, scores in task["languages"].items()}
