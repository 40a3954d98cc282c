"""The texts of a task's tables, the same for the terminal and for report.md: percent, points and intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from jaxprefix.evaluation.report.intervals import Estimate, TaskStatistics
from jaxprefix.evaluation.report.summary import (
    TaskReport,
    baseline_scores,
    baseline_summary,
    mean,
    others_of,
    source_language,
)

MISSING = "–"
INTERVAL = "95% interval"
_BY_SIZE: tuple[Literal["families", "scripts"], ...] = ("families", "scripts")


@dataclass(frozen=True)
class Cells:
    """One table: a header, sections of lines, and bold lines at the end; each line has the header's length."""

    header: list[str]
    sections: list[list[list[str]]]
    closing: Sequence[list[str]] = ()


def percent(value: float | None) -> str:
    return MISSING if value is None else f"{100 * value:.1f}"


def points(value: float | None) -> str:
    return MISSING if value is None else f"{100 * value:+.1f}"


def span(estimate: Estimate | None, signed: bool = False) -> str:
    """ "61.2..66.0" """
    if estimate is None or estimate["low"] is None or estimate["high"] is None:
        return MISSING
    form = points if signed else percent
    return f"{form(estimate['low'])}..{form(estimate['high'])}"


def language_cells(task: TaskReport, baseline: TaskReport | None, about: TaskStatistics | None) -> Cells:
    """A line a language, the source first, then the mean of the others and the gap; what is not known has no column.

    Without `about` there are no intervals and no names of languages.
    """
    metrics, source = task["metrics"], source_language(task)
    names = about["names"] if about else {}
    compared, headline = baseline_scores(task, baseline), f"{metrics[0]} %"
    columns = ["language", headline, *([INTERVAL] if about else []), *(f"{name} %" for name in metrics[1:])]
    columns += [f"baseline {headline}"] if baseline else []
    columns += ["rows", "unparsed %", *(["name"] if names else [])]
    lines = []
    for code in sorted(task["languages"], key=lambda code: (code != source, code)):
        scores = task["languages"][code]
        line = {"language": f"{code} (source)" if code == source else code, "name": names.get(code, "")}
        line |= _figures(metrics, scores, about["languages"][code] if about else None)
        line |= {f"baseline {headline}": percent(compared.get(code)), "rows": str(scores["n"])}
        lines.append(line | {"unparsed %": percent(scores["parse_failure_rate"])})
    return Cells(columns, [_table(columns, lines)], _table(columns, _closing(task, baseline, about)))


def _closing(task: TaskReport, baseline: TaskReport | None, about: TaskStatistics | None) -> list[dict[str, str]]:
    """The mean of the others, and the gap."""
    metrics, column = task["metrics"], f"baseline {task['metrics'][0]} %"
    others = [task["languages"][code] for code in others_of(task)]
    unparsed = mean(scores["parse_failure_rate"] for scores in others) if others else None
    compared_mean, compared_gap = baseline_summary(task, baseline)
    average = {"language": "mean of others", column: percent(compared_mean)}
    average |= _figures(metrics, task["mean_others"], about["mean_others"] if about else None)
    average |= {"rows": str(sum(int(scores["n"]) for scores in others)), "unparsed %": percent(unparsed)}
    gap = {"language": "gap", column: points(compared_gap)}
    return [average, gap | _figures(metrics, task["gap"], about["gap"] if about else None, signed=True)]


def _figures(
    metrics: Sequence[str],
    scores: Mapping[str, float] | None,
    about: Mapping[str, Estimate] | None,
    signed: bool = False,
) -> dict[str, str]:
    """The scores by column, and the headline's interval."""
    form = points if signed else percent
    found = {f"{name} %": form(scores[name] if scores else None) for name in metrics}
    return found | {INTERVAL: span(about[metrics[0]] if about else None, signed)}


def _table(columns: Sequence[str], lines: Sequence[Mapping[str, str]]) -> list[list[str]]:
    return [[line.get(column, "") for column in columns] for line in lines]


def group_cells(about: TaskStatistics) -> Cells | None:
    """The means by family, script and resource level, as far as there are several; the large groups first."""
    metrics = about["metrics"]
    columns = ["mean by", f"{metrics[0]} %", INTERVAL, *(f"{name} %" for name in metrics[1:]), "languages"]
    largest = [sorted(about[key].items(), key=lambda each: -len(each[1]["languages"])) for key in _BY_SIZE]
    classes = [(f"class {level}", group) for level, group in about["resources"].items()]
    sections = []
    for groups in (*largest, classes):
        lines = []
        for name, group in groups:
            figures = {metric: estimate["value"] for metric, estimate in group["scores"].items()}
            line = {"mean by": name, "languages": str(len(group["languages"]))}
            lines.append(line | _figures(metrics, figures, group["scores"]))
        if len(lines) > 1:
            sections.append(_table(columns, lines))
    return Cells(columns, sections) if sections else None
