"""A bar per language: the source first, the others from best to worst, with paler bars for a baseline."""

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from jaxprefix.evaluation.plots import canvas
from jaxprefix.evaluation.report.intervals import Statistics, TaskStatistics
from jaxprefix.evaluation.report.summary import Report, TaskReport, baseline_scores, source_language

HORIZONTAL_FROM = 16  # languages; from here on bars are horizontal, so that names and values are readable
VERTICAL_HEIGHT = 3.2  # of a panel with vertical bars, in inches
# Shares of a language's width. A baseline's bar is to the right of the run's bar, or under it.
BAR_ALONE, BAR, BASELINE_BAR = 0.7, 0.5, 0.26


def by_language(report: Report, baseline: Report | None = None, statistics: Statistics | None = None) -> Figure:
    """One panel per task: the headline metric of every language in percent.

    Args:
        report: the result of `report.build`.
        baseline: another run's report, such as the frozen base's. Tasks and languages that it lacks have no paler bar.
        statistics: intervals of the same tasks, shown as whiskers.
    """
    tasks = report["tasks"]
    baselines = {name: baseline["tasks"][name] for name in tasks if baseline and name in baseline["tasks"]}
    heights = [_height(task) for task in tasks.values()]
    figure = canvas.figure(sum(heights) + 0.8)
    panels = figure.subplots(len(tasks), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (name, task) in zip(panels, tasks.items(), strict=True):
        _panel(axes, name, task, baselines.get(name), statistics["tasks"][name] if statistics else None)
    keys = _keys(report, any(baseline_scores(tasks[name], other) for name, other in baselines.items()))
    canvas.legend(figure, f"{report['model']}: {report['method']}", [*keys, *[canvas.INTERVAL_KEY] * bool(statistics)])
    return figure


def _height(task: TaskReport) -> float:
    """The height of a task's panel, in inches."""
    count = len(task["languages"])
    return VERTICAL_HEIGHT if count < HORIZONTAL_FROM else 0.9 + canvas.LYING_HEIGHT * count


def _panel(axes: Axes, name: str, task: TaskReport, baseline: TaskReport | None, stats: TaskStatistics | None) -> None:
    """The bars of one task."""
    metric, source = task["metrics"][0], source_language(task)
    percent = {code: 100 * scores[metric] for code, scores in task["languages"].items()}
    compared = {code: 100 * value for code, value in baseline_scores(task, baseline).items()}
    codes = sorted(percent, key=lambda code: (code != source, -percent[code], code))
    values = [percent[code] for code in codes]
    ends = [canvas.ends(stats["languages"][code][metric]) if stats else None for code in codes]
    horizontal = len(codes) >= HORIZONTAL_FROM
    # At least 1, so that a run without any correct answer has a scale.
    limit = 1.12 * max(1.0, *values, *compared.values(), *(span[1] for span in ends if span))
    draw: Callable[..., BarContainer] = axes.barh if horizontal else axes.bar
    width, shift = (BAR, BASELINE_BAR / 2) if compared else (BAR_ALONE, 0.0)
    colours = [canvas.SOURCE_COLOUR if code == source else canvas.OTHER_COLOUR for code in codes]
    positions = [index - shift for index in range(len(codes))]
    draw(positions, values, width, color=colours)
    with_baseline = [index for index, code in enumerate(codes) if code in compared]
    baseline_values = [compared[codes[index]] for index in with_baseline]
    draw([index + BAR / 2 for index in with_baseline], baseline_values, BASELINE_BAR, color=canvas.BASELINE_COLOUR)
    canvas.whiskers(axes, positions, ends, horizontal)
    canvas.labels(axes, positions, values, ends, horizontal)
    if task["mean_others"]:
        line = axes.axvline if horizontal else axes.axhline
        line(100 * task["mean_others"][metric], color=canvas.MEAN_COLOUR, linestyle="--", linewidth=1.0)
    _set_axes(axes, codes, horizontal, limit, metric)
    axes.set_title(name, fontsize=10, loc="left", parse_math=False)


def _set_axes(axes: Axes, codes: Sequence[str], horizontal: bool, limit: float, metric: str) -> None:
    """Sets names, limits and the percent scale. Its ticks end at 100, even if the scale itself has room for labels."""
    names = axes.set_yticks if horizontal else axes.set_xticks
    scale, across = (axes.set_xlim, axes.set_ylim) if horizontal else (axes.set_ylim, axes.set_xlim)
    # A single bar is as wide as one of several.
    margin = max(0.0, (5 - len(codes)) / 2)
    ends = (-0.7 - margin, len(codes) - 0.3 + margin)
    across(*(reversed(ends) if horizontal else ends))
    narrow = not horizontal and max(map(len, codes)) * len(codes) > 60
    names(range(len(codes)), labels=codes, parse_math=False, **({"rotation": 45, "ha": "right"} if narrow else {}))
    scale(0.0, limit)
    (axes.set_xticks if horizontal else axes.set_yticks)(canvas.percent_ticks(limit))
    (axes.set_xlabel if horizontal else axes.set_ylabel)(f"{metric} (%)", fontsize=9, parse_math=False)
    (axes.set_ylabel if horizontal else axes.set_xlabel)("language", fontsize=9)
    canvas.plain(axes, "x" if horizontal else "y")
    axes.tick_params(labeltop=horizontal)  # a tall panel has its scale at both ends


def _keys(report: Report, compared: bool) -> list[Patch | Line2D]:
    """The entries of the legend."""
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
