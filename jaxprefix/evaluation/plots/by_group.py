"""Bars by language family and by script, the best first, with how many languages each stands for."""

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from jaxprefix.evaluation.plots import canvas
from jaxprefix.evaluation.report.intervals import Group, Statistics, TaskStatistics
from jaxprefix.evaluation.report.summary import Report

PANELS = (("families", "language family"), ("scripts", "script"))


def by_group(report: Report, statistics: Statistics) -> Figure | None:
    """Two panels a task: its headline metric in percent, the mean over languages other than the source.

    None where no task has languages of two families or two scripts that are known.
    """
    tasks = {name: about for name, about in statistics["tasks"].items() if _several(about)}
    if not tasks:
        return None
    counts = [max(len(about["families"]), len(about["scripts"])) for about in tasks.values()]
    heights = [0.9 + canvas.LYING_HEIGHT * max(4, count) for count in counts]
    figure = canvas.figure(sum(heights) + 0.8)
    panels = figure.subplots(len(tasks), 2, squeeze=False, height_ratios=heights)
    for row, (name, about), count in zip(panels, tasks.items(), counts, strict=True):
        metric = about["metrics"][0]
        for axes, (key, title) in zip(row, PANELS, strict=True):
            groups: Mapping[str, Group] = about[key]
            _panel(axes, groups, metric, max(4, count))
            axes.set_title(f"{name}, by {title}", fontsize=10, loc="left", parse_math=False)
    keys = [Patch(color=canvas.OTHER_COLOUR, label="mean over (so many) languages"), canvas.INTERVAL_KEY]
    canvas.legend(figure, f"{report['model']}: {report['method']}", keys)
    return figure


def _several(about: TaskStatistics) -> bool:
    return max(len(about["families"]), len(about["scripts"])) > 1


def _panel(axes: Axes, groups: Mapping[str, Group], metric: str, rows: int) -> None:
    """Bars from the top down; `rows` is how many have room."""
    names = sorted(groups, key=lambda name: (-groups[name]["scores"][metric]["value"], name))
    values = [100 * groups[name]["scores"][metric]["value"] for name in names]
    ends = [canvas.ends(groups[name]["scores"][metric]) for name in names]
    limit = 1.15 * max(1.0, *values, *(span[1] for span in ends if span))
    places = list(range(len(names)))
    axes.barh(places, values, 0.7, color=canvas.OTHER_COLOUR)
    canvas.whiskers(axes, places, ends, lying=True)
    canvas.labels(axes, places, values, ends, lying=True)
    texts = [f"{name} ({len(groups[name]['languages'])})" for name in names]
    axes.set_yticks(places, labels=texts, parse_math=False)
    axes.set_ylim(rows - 0.3, -0.7)
    axes.set_xlim(0.0, limit)
    axes.set_xticks(canvas.percent_ticks(limit))
    axes.set_xlabel(f"{metric} (%)", fontsize=9, parse_math=False)
    canvas.plain(axes, "x")
