"""A bar chart per language: the source first, the others from best to worst, the baseline paler beside them."""

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from jaxprefix.evaluation.plots import canvas
from jaxprefix.evaluation.report.intervals import Statistics, TaskStatistics
from jaxprefix.evaluation.report.summary import Report, TaskReport, baseline_scores, source_language

LYING_FROM = 16  # languages: as many no longer stand side by side with names and values that can be read
STANDING_HEIGHT = 3.2  # inches of a panel with standing bars
# Shares of a language's place; a baseline's bar stands right of (under) the run's own.
BAR_ALONE, BAR, BASELINE_BAR = 0.7, 0.5, 0.26


def by_language(report: Report, baseline: Report | None = None, statistics: Statistics | None = None) -> Figure:
    """One panel a task: the headline metric of every language in percent.

    Args:
        report: as `report.build` makes it.
        baseline: another run's report, say the frozen base's; tasks and languages that it lacks have no paler bar.
        statistics: of the same tasks: the intervals, drawn as whiskers.
    """
    tasks = report["tasks"]
    beside = {name: baseline["tasks"][name] for name in tasks if baseline and name in baseline["tasks"]}
    heights = [_height(task) for task in tasks.values()]
    figure = canvas.figure(sum(heights) + 0.8)
    panels = figure.subplots(len(tasks), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (name, task) in zip(panels, tasks.items(), strict=True):
        _panel(axes, name, task, beside.get(name), statistics["tasks"][name] if statistics else None)
    keys = _keys(report, any(baseline_scores(tasks[name], other) for name, other in beside.items()))
    canvas.legend(figure, f"{report['model']}: {report['method']}", [*keys, *[canvas.INTERVAL_KEY] * bool(statistics)])
    return figure


def _height(task: TaskReport) -> float:
    """Inches of one task's panel."""
    count = len(task["languages"])
    return STANDING_HEIGHT if count < LYING_FROM else 0.9 + canvas.LYING_HEIGHT * count


def _panel(axes: Axes, name: str, task: TaskReport, baseline: TaskReport | None, about: TaskStatistics | None) -> None:
    """One task's bars of its headline metric."""
    metric, source = task["metrics"][0], source_language(task)
    percent = {code: 100 * scores[metric] for code, scores in task["languages"].items()}
    compared = {code: 100 * value for code, value in baseline_scores(task, baseline).items()}
    codes = sorted(percent, key=lambda code: (code != source, -percent[code], code))
    values = [percent[code] for code in codes]
    ends = [canvas.ends(about["languages"][code][metric]) if about else None for code in codes]
    lying = len(codes) >= LYING_FROM
    # A run without any right answer still has a scale.
    limit = 1.12 * max(1.0, *values, *compared.values(), *(span[1] for span in ends if span))
    draw: Callable[..., BarContainer] = axes.barh if lying else axes.bar
    width, shift = (BAR, BASELINE_BAR / 2) if compared else (BAR_ALONE, 0.0)
    colours = [canvas.SOURCE_COLOUR if code == source else canvas.OTHER_COLOUR for code in codes]
    places = [place - shift for place in range(len(codes))]
    draw(places, values, width, color=colours)
    shown = [place for place, code in enumerate(codes) if code in compared]
    beside = [compared[codes[place]] for place in shown]
    draw([place + BAR / 2 for place in shown], beside, BASELINE_BAR, color=canvas.BASELINE_COLOUR)
    canvas.whiskers(axes, places, ends, lying)
    canvas.labels(axes, places, values, ends, lying)
    if task["mean_others"]:
        line = axes.axvline if lying else axes.axhline
        line(100 * task["mean_others"][metric], color=canvas.MEAN_COLOUR, linestyle="--", linewidth=1.0)
    _place(axes, codes, lying, limit, metric)
    axes.set_title(name, fontsize=10, loc="left", parse_math=False)


def _place(axes: Axes, codes: Sequence[str], lying: bool, limit: float, metric: str) -> None:
    """Names, limits and the percent scale; the scale's ticks end at 100 where the room for the values does not."""
    names = axes.set_yticks if lying else axes.set_xticks
    scale, across = (axes.set_xlim, axes.set_ylim) if lying else (axes.set_ylim, axes.set_xlim)
    # A single bar keeps the width that it would have among several.
    margin = max(0.0, (5 - len(codes)) / 2)
    ends = (-0.7 - margin, len(codes) - 0.3 + margin)
    across(*(reversed(ends) if lying else ends))
    narrow = not lying and max(map(len, codes)) * len(codes) > 60
    names(range(len(codes)), labels=codes, parse_math=False, **({"rotation": 45, "ha": "right"} if narrow else {}))
    scale(0.0, limit)
    (axes.set_xticks if lying else axes.set_yticks)(canvas.percent_ticks(limit))
    (axes.set_xlabel if lying else axes.set_ylabel)(f"{metric} (%)", fontsize=9, parse_math=False)
    (axes.set_ylabel if lying else axes.set_xlabel)("language", fontsize=9)
    canvas.plain(axes, "x" if lying else "y")
    axes.tick_params(labeltop=lying)  # a tall panel is read from either end


def _keys(report: Report, compared: bool) -> list[Patch | Line2D]:
    """The legend's entries, of what the picture shows."""
    tasks = report["tasks"].values()
    keys: list[Patch | Line2D] = []
    if any(task["source"] for task in tasks):
        keys.append(Patch(color=canvas.SOURCE_COLOUR, label="source language"))
    if any(task["mean_others"] for task in tasks):
        keys.append(Patch(color=canvas.OTHER_COLOUR, label="other languages"))
    if compared:
        keys.append(Patch(color=canvas.BASELINE_COLOUR, label="baseline"))
    if any(task["mean_others"] for task in tasks):
        keys.append(Line2D([], [], color=canvas.MEAN_COLOUR, linestyle="--", linewidth=1.0, label="mean of others"))
    return keys
