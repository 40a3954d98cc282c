"""The gap to the source language by resource class: a dot per language, and the class means with intervals.

The classes are those of Joshi et al. 2020 (arXiv:2004.09095): 0 has almost no text, 5 has the most.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from jaxprefix.evaluation.plots import canvas
from jaxprefix.evaluation.report.intervals import Group, Statistics, TaskStatistics
from jaxprefix.evaluation.report.summary import Report, TaskReport, source_language

HEIGHT = 4.2  # of a panel, in inches
# Inches: the height of the scale, the width of all classes, the height of a line of small text, the diameter of a dot.
SCALE, PANEL, LINE, DOT = 3.5, 7.2, 0.115, 0.075
NAMED = 24  # codes are shown if no class has more languages than this
MEAN_OFFSET, DOT_OFFSET = -0.36, -0.22  # from the tick of a class, with codes to the right of the dots
UNNAMED_OFFSET = 0.16  # added if there are no codes


def by_resource(report: Report, statistics: Statistics) -> Figure | None:
    """One panel per task: the headline metric as a gap to the source in points, or in percent without the source.

    None if no task has languages of two known classes.
    """
    tasks = {name: stats for name, stats in statistics["tasks"].items() if len(stats["resources"]) > 1}
    if not tasks:
        return None
    figure = canvas.figure(HEIGHT * len(tasks) + 0.8)
    panels = figure.subplots(len(tasks), 1, squeeze=False)[:, 0]
    for axes, (name, stats) in zip(panels, tasks.items(), strict=True):
        _panel(axes, report["tasks"][name], stats)
        axes.set_title(name, fontsize=10, loc="left", parse_math=False)
    style = {"linestyle": "none", "marker": "o", "markersize": 4}
    keys = [
        Line2D([], [], color=canvas.OTHER_COLOUR, label="a language", **style),
        Line2D([], [], color=canvas.MEAN_COLOUR, marker="D", markersize=4, label="mean of the class, 95% interval"),
    ]
    canvas.legend(figure, f"{report['model']}: {report['method']}", keys)
    return figure


def _panel(axes: Axes, task: TaskReport, stats: TaskStatistics) -> None:
    """The dots of each class, their codes if there is room, and their mean on the left."""
    metric, source, levels = task["metrics"][0], source_language(task), stats["resources"]
    values = {code: 100 * scores[metric] for code, scores in task["languages"].items()}
    if source:
        values = {code: values[source] - value for code, value in values.items()}
    spans = [_mean(group, metric) for group in levels.values()]
    plotted = [values[code] for group in levels.values() for code in group["languages"]]
    plotted += [value for span in spans for value in span]
    margin = 0.06 * max(2.0, max(plotted) - min(plotted))
    bottom, top = min(plotted) - margin, max(plotted) + margin
    inch = (top - bottom) / SCALE
    named = max(len(group["languages"]) for group in levels.values()) <= NAMED
    for place, group in enumerate(levels.values()):
        codes = sorted(group["languages"], key=lambda code: (values[code], code))
        heights = np.array([values[code] for code in codes])
        center = place + (0.0 if named else UNNAMED_OFFSET)
        x = center + DOT_OFFSET + lanes(heights, DOT * inch) * DOT * len(levels) / PANEL
        axes.plot(x, heights, "o", color=canvas.OTHER_COLOUR, markersize=4, alpha=0.75, markeredgewidth=0)
        if named:
            texts = apart(heights, LINE * inch, bottom + margin / 2, top - margin / 2)
            _names(axes, codes, x, heights, texts)
        mean, *ends = spans[place]
        axes.plot(center + MEAN_OFFSET, mean, "D", color=canvas.MEAN_COLOUR, markersize=4)
        if ends:
            axes.plot([center + MEAN_OFFSET] * 2, ends, color=canvas.MEAN_COLOUR, linewidth=1.2)
    for edge in range(1, len(levels)):
        axes.axvline(edge - 0.5, color="#DDDDDD", linewidth=0.6)
    axes.set_xlim(-0.5, len(levels) - 0.5)
    axes.set_ylim(bottom, top)
    axes.set_xticks(range(len(levels)), [f"{level} ({len(group['languages'])})" for level, group in levels.items()])
    axes.set_xlabel("resource class (Joshi et al. 2020), and its languages", fontsize=9)
    title = f"gap to {source} ({metric}, points)" if source else f"{metric} (%)"
    axes.set_ylabel(title, fontsize=9, parse_math=False)
    canvas.plain(axes, "y")


def _mean(group: Group, metric: str) -> list[float]:
    """The mean of a class and, if known, the ends of its interval, in percent or points."""
    estimate = (group["gap"] or group["scores"])[metric]
    return [100 * estimate["value"], *(canvas.ends(estimate) or ())]


def _names(axes: Axes, codes: Sequence[str], x: np.ndarray, heights: np.ndarray, texts: np.ndarray) -> None:
    """The codes in a column to the right of the dots, each with a line to its dot."""
    column = float(x.max()) + 0.14
    for code, dot, height, text in zip(codes, x, heights, texts, strict=True):
        axes.plot([dot, column - 0.02], [height, text], color="#BBBBBB", linewidth=0.5, zorder=1)
        axes.text(column, text, code, fontsize=6.5, va="center", parse_math=False)


def lanes(heights: np.ndarray, size: float) -> np.ndarray:
    """The lane of each dot, for ascending heights: dots of one lane are at least `size` apart."""
    result, last = [], []
    for height in heights:
        lane = next((index for index, below in enumerate(last) if height - below >= size), len(last))
        last[lane : lane + 1] = [height]
        result.append(lane)
    return np.array(result, float)


def apart(heights: np.ndarray, size: float, bottom: float, top: float) -> np.ndarray:
    """Ascending heights, moved as little as possible so that they are `size` apart and, if they fit, in bottom..top.

    Except for the bounds this is the least squares solution: isotonic regression by pooling adjacent violators.
    """
    steps = size * np.arange(len(heights))
    pools: list[tuple[float, int]] = []
    for value in heights - steps:
        mean, count = float(value), 1
        while pools and pools[-1][0] > mean:
            last_mean, last_count = pools.pop()
            mean = (mean * count + last_mean * last_count) / (count + last_count)
            count += last_count
        pools.append((mean, count))
    pooled = np.repeat([mean for mean, _ in pools], [count for _, count in pools])
    return np.clip(pooled, bottom, max(bottom, top - float(steps[-1]))) + steps
