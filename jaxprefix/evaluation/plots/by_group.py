"""Bars by language family and by script, the best first, with their numbers of languages."""

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from jaxprefix.evaluation.plots import canvas
from jaxprefix.evaluation.report.intervals import Group, Statistics, TaskStatistics
from jaxprefix.evaluation.report.summary import Report

PANELS = (("families", "language family"), ("scripts", "script"))


def by_group(report: Report, statistics: Statistics) -> Figure | None:
    """Two panels per task: the headline metric in percent, as means over languages other than the source.

    None if no task has languages of two known families or scripts.
    """
    tasks = {name: stats for name, stats in statistics["tasks"].items() if _several(stats)}
    if not tasks:
        return None
    counts = [max(len(stats["families"]), len(stats["scripts"])) for stats in tasks.values()]
    heights = [0.9 + canvas.LYING_HEIGHT * max(4, count) for count in counts]
    figure = canvas.figure(sum(heights) + 0.8)
    panels = figure.subplots(len(tasks), 2, squeeze=False, height_ratios=heights)
    for row, (name, stats), count in zip(panels, tasks.items(), counts, strict=True):
        metric = stats["metrics"][0]
        for axes, (key, title) in zip(row, PANELS, strict=True):
            groups: Mapping[str, Group] = stats[key]
            _panel(axes, groups, metric, max(4, count))
            axes.set_title(f"{name}, by {title}", fontsize=10, loc="left", parse_math=False)
    keys = [Patch(color=canvas.OTHER_COLOUR, label="mean (number of languages)"), canvas.INTERVAL_KEY]
    canvas.legend(figure, f"{report['model']}: {report['method']}", keys)
    return figure


def _several(stats: TaskStatistics) -> bool:
    return max(len(stats["families"]), len(stats["scripts"])) > 1


def _panel(axes: Axes, groups: Mapping[str, Group], metric: str, rows: int) -> None:
    """Bars from top to bottom. The panel has room for `rows` bars."""
    names = sorted(groups, key=lambda name: (-groups[name]["scores"][metric]["value"], name))
    values = [100 * groups[name]["scores"][metric]["value"] for name in names]
    ends = [canvas.ends(groups[name]["scores"][metric]) for name in names]
    limit = 1.15 * max(1.0, *values, *(span[1] for span in ends if span))
    positions = list(range(len(names)))
    axes.barh(positions, values, 0.7, color=canvas.OTHER_COLOUR)
    canvas.whiskers(axes, positions, ends, horizontal=True)
    canvas.labels(axes, positions, values, ends, horizontal=True)
    texts = [f"{name} ({len(groups[name]['languages'])})" for name in names]
    axes.set_yticks(positions, labels=texts, parse_math=False)
    axes.set_ylim(rows - 0.3, -0.7)
    axes.set_xlim(0.0, limit)
    axes.set_xticks(canvas.percent_ticks(limit))
    axes.set_xlabel(f"{metric} (%)", fontsize=9, parse_math=False)
    canvas.plain(axes, "x")
