"""The gap to the source language against the resource level: a dot a language, the classes' means with intervals.

Levels are the classes of Joshi et al. 2020 (arXiv:2004.09095): 0 has next to no text, 5 has the most.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from jaxprefix.evaluation.plots import canvas
from jaxprefix.evaluation.report.intervals import Group, Statistics, TaskStatistics
from jaxprefix.evaluation.report.summary import Report, TaskReport, source_language

LEVELS = range(6)
HEIGHT = 4.2  # inches of a panel
# Inches of its scale, of the width of a level, of a line of small text and of a dot.
SCALE, LEVEL, LINE, DOT = 3.5, 1.2, 0.115, 0.075
NAMED = 24  # languages in one class, at most, whose codes can stand below each other
MEAN_PLACE, DOT_PLACE = -0.36, -0.22  # from the level's tick, in levels, with codes right of the dots
WITHOUT_NAMES = 0.16  # so much further right where there are none


def by_resource(report: Report, statistics: Statistics) -> Figure | None:
    """One panel a task, of its headline metric: points behind the source language, or percent where that is absent.

    None where no task has languages of two levels that are known.
    """
    tasks = {name: about for name, about in statistics["tasks"].items() if len(about["resources"]) > 1}
    if not tasks:
        return None
    figure = canvas.figure(HEIGHT * len(tasks) + 0.8)
    panels = figure.subplots(len(tasks), 1, squeeze=False)[:, 0]
    for axes, (name, about) in zip(panels, tasks.items(), strict=True):
        _panel(axes, report["tasks"][name], about)
        axes.set_title(name, fontsize=10, loc="left", parse_math=False)
    style = {"linestyle": "none", "marker": "o", "markersize": 4}
    keys = [
        Line2D([], [], color=canvas.OTHER_COLOUR, label="a language", **style),
        Line2D([], [], color=canvas.MEAN_COLOUR, marker="D", markersize=4, label="mean of the class, 95% interval"),
    ]
    canvas.legend(figure, f"{report['model']}: {report['method']}", keys)
    return figure


def _panel(axes: Axes, task: TaskReport, about: TaskStatistics) -> None:
    """Dots by level, their codes where there is room, and left of them their mean."""
    metric, source, levels = task["metrics"][0], source_language(task), about["resources"]
    values = {code: 100 * scores[metric] for code, scores in task["languages"].items()}
    if source:
        values = {code: values[source] - value for code, value in values.items()}
    spans = {level: _mean(group, metric) for level, group in levels.items()}
    every = [values[code] for group in levels.values() for code in group["languages"]]
    every += [value for span in spans.values() for value in span]
    margin = 0.06 * max(2.0, max(every) - min(every))
    bottom, top = min(every) - margin, max(every) + margin
    inch = (top - bottom) / SCALE
    named = max(len(group["languages"]) for group in levels.values()) <= NAMED
    for level, group in levels.items():
        codes = sorted(group["languages"], key=lambda code: (values[code], code))
        heights = np.array([values[code] for code in codes])
        place = int(level) + (0.0 if named else WITHOUT_NAMES)
        across = place + DOT_PLACE + lanes(heights, DOT * inch) * DOT / LEVEL
        axes.plot(across, heights, "o", color=canvas.OTHER_COLOUR, markersize=4, alpha=0.75, markeredgewidth=0)
        if named:
            texts = apart(heights, LINE * inch, bottom + margin / 2, top - margin / 2)
            _names(axes, codes, across, heights, texts)
        mean, *ends = spans[level]
        axes.plot(place + MEAN_PLACE, mean, "D", color=canvas.MEAN_COLOUR, markersize=4)
        if ends:
            axes.plot([place + MEAN_PLACE] * 2, ends, color=canvas.MEAN_COLOUR, linewidth=1.2)
    for edge in LEVELS[1:]:
        axes.axvline(edge - 0.5, color="#DDDDDD", linewidth=0.6)
    axes.set_xlim(-0.5, len(LEVELS) - 0.5)
    axes.set_ylim(bottom, top)
    axes.set_xticks(LEVELS, labels=[_tick(level, levels) for level in LEVELS])
    axes.set_xlabel("resource class (Joshi et al. 2020), and its languages", fontsize=9)
    title = f"gap to {source} ({metric}, points)" if source else f"{metric} (%)"
    axes.set_ylabel(title, fontsize=9, parse_math=False)
    canvas.plain(axes, "y")


def _mean(group: Group, metric: str) -> list[float]:
    """What is drawn of a class, in percent or points: its mean and, where they are known, the interval's ends."""
    found = (group["gap"] or group["scores"])[metric]
    return [100 * found["value"], *(canvas.ends(found) or ())]


def _tick(level: int, levels: Mapping[str, Group]) -> str:
    group = levels.get(str(level))
    return f"{level} ({len(group['languages'])})" if group else f"{level}"


def _names(axes: Axes, codes: Sequence[str], across: np.ndarray, heights: np.ndarray, texts: np.ndarray) -> None:
    """The codes in a column right of the dots, each with a line to its own."""
    column = float(across.max()) + 0.14
    for code, place, height, text in zip(codes, across, heights, texts, strict=True):
        axes.plot([place, column - 0.02], [height, text], color="#BBBBBB", linewidth=0.5, zorder=1)
        axes.text(column, text, code, fontsize=6.5, va="center", parse_math=False)


def lanes(heights: np.ndarray, size: float) -> np.ndarray:
    """[dots] of lane numbers for ascending heights: dots of one lane are at least `size` apart."""
    found, last = [], []
    for height in heights:
        lane = next((place for place, below in enumerate(last) if height - below >= size), len(last))
        last[lane : lane + 1] = [height]
        found.append(lane)
    return np.array(found, float)


def apart(heights: np.ndarray, size: float, bottom: float, top: float) -> np.ndarray:
    """Ascending heights, moved as little as makes them `size` apart and keeps them within bottom..top, if they fit.

    The least squares solution without the ends: isotonic regression by pooling adjacent violators.
    """
    steps = size * np.arange(len(heights))
    pools: list[tuple[float, int]] = []
    for value in heights - steps:
        mean, count = float(value), 1
        while pools and pools[-1][0] > mean:
            before, more = pools.pop()
            mean, count = (mean * count + before * more) / (count + more), count + more
        pools.append((mean, count))
    found = np.repeat([mean for mean, _ in pools], [count for _, count in pools])
    return np.clip(found, bottom, max(bottom, top - float(steps[-1]))) + steps
