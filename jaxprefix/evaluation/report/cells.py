"""The cells of a task's tables, for the terminal and for report.md: percent, points and intervals."""

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
    """One table: a header, sections of lines, and bold closing lines. Each line is as long as the header."""

    header: list[str]
    sections: list[list[list[str]]]
    closing: Sequence[list[str]] = ()


def percent(value: float | None) -> str:
    return MISSING if value is None else f"{100 * value:.1f}"


def points(value: float | None) -> str:
    return MISSING if value is None else f"{100 * value:+.1f}"


def span(estimate: Estimate | None, signed: bool = False) -> str:
    """An interval as text, such as "61.2..66.0"."""
    if estimate is None or estimate["low"] is None or estimate["high"] is None:
        return MISSING
    to_text = points if signed else percent
    return f"{to_text(estimate['low'])}..{to_text(estimate['high'])}"


def language_cells(task: TaskReport, baseline: TaskReport | None, stats: TaskStatistics | None) -> Cells:
    """One line per language, the source first, then the mean of the others and the gap.

    Without `stats` there are no columns for intervals and language names; without `baseline`, none for its scores.
    """
    metrics, source = task["metrics"], source_language(task)
    names = stats["names"] if stats else {}
    compared, headline = baseline_scores(task, baseline), f"{metrics[0]} %"
    columns = ["language", headline, *([INTERVAL] if stats else []), *(f"{name} %" for name in metrics[1:])]
    columns += [f"baseline {headline}"] if baseline else []
    columns += ["rows", "unparsed %", *(["name"] if names else [])]
    lines = []
    for code in sorted(task["languages"], key=lambda code: (code != source, code)):
        scores = task["languages"][code]
        line = {"language": f"{code} (source)" if code == source else code, "name": names.get(code, "")}
        line |= _figures(metrics, scores, stats["languages"][code] if stats else None)
        line |= {f"baseline {headline}": percent(compared.get(code)), "rows": str(scores["n"])}
        lines.append(line | {"unparsed %": percent(scores["parse_failure_rate"])})
    return Cells(columns, [_table(columns, lines)], _table(columns, _closing(task, baseline, stats)))


def _closing(task: TaskReport, baseline: TaskReport | None, stats: TaskStatistics | None) -> list[dict[str, str]]:
    """The lines of the mean of the others and of the gap."""
    metrics, column = task["metrics"], f"baseline {task['metrics'][0]} %"
    others = [task["languages"][code] for code in others_of(task)]
    unparsed = mean(scores["parse_failure_rate"] for scores in others) if others else None
    compared_mean, compared_gap = baseline_summary(task, baseline)
    average = {"language": "mean of others", column: percent(compared_mean)}
    average |= _figures(metrics, task["mean_others"], stats["mean_others"] if stats else None)
    average |= {"rows": str(sum(int(scores["n"]) for scores in others)), "unparsed %": percent(unparsed)}
    gap = {"language": "gap", column: points(compared_gap)}
    return [average, gap | _figures(metrics, task["gap"], stats["gap"] if stats else None, signed=True)]


def _figures(
    metrics: Sequence[str],
    scores: Mapping[str, float] | None,
    estimates: Mapping[str, Estimate] | None,
    signed: bool = False,
) -> dict[str, str]:
    """The scores by column, and the interval of the headline."""
    to_text = points if signed else percent
    figures = {f"{name} %": to_text(scores[name] if scores else None) for name in metrics}
    return figures | {INTERVAL: span(estimates[metrics[0]] if estimates else None, signed)}


def _table(columns: Sequence[str], lines: Sequence[Mapping[str, str]]) -> list[list[str]]:
    return [[line.get(column, "") for column in columns] for line in lines]


def group_cells(stats: TaskStatistics) -> Cells | None:
    """The means by family, script and resource class, if there are several. Large groups come first."""
    metrics = stats["metrics"]
    columns = ["mean by", f"{metrics[0]} %", INTERVAL, *(f"{name} %" for name in metrics[1:]), "languages"]
    largest = [sorted(stats[key].items(), key=lambda item: -len(item[1]["languages"])) for key in _BY_SIZE]
    classes = [(f"class {level}", group) for level, group in stats["resources"].items()]
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
