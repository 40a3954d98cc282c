"""A bar chart per language: the source first, the others from best to worst, the baseline paler beside them."""

import io
import textwrap
from collections.abc import Callable
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from jaxprefix.evaluation.report import Report, TaskReport, baseline_scores, source_language, write_whole

# From the colour-blind-safe palette of Okabe and Ito, https://jfly.uni-koeln.de/color/
SOURCE_COLOUR = "#E69F00"
OTHER_COLOUR = "#0072B2"
BASELINE_COLOUR = "#A9CCE3"
MEAN_COLOUR = "#333333"

LYING_FROM = 16  # languages: as many no longer stand side by side with names and values that can be read
STANDING_HEIGHT = 3.2  # inches of a panel with standing bars
LYING_HEIGHT = 0.19  # inches a lying bar
WIDTH = 8.0  # inches
DOTS = 144  # an inch
# Shares of a language's place; a baseline's bar stands right of (under) the run's own.
BAR_ALONE, BAR, BASELINE_BAR = 0.7, 0.5, 0.26


def _height(task: TaskReport) -> float:
    """Inches of one task's panel."""
    count = len(task["languages"])
    return STANDING_HEIGHT if count < LYING_FROM else 0.9 + LYING_HEIGHT * count


def _place(axes: Axes, codes: list[str], lying: bool, limit: float, metric: str) -> None:
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
    ticks = [tick for tick in MaxNLocator(5).tick_values(0.0, limit) if 0.0 <= tick <= min(limit, 100.0)]
    (axes.set_xticks if lying else axes.set_yticks)(ticks)
    (axes.set_xlabel if lying else axes.set_ylabel)(f"{metric} (%)", fontsize=9, parse_math=False)
    (axes.set_ylabel if lying else axes.set_xlabel)("language", fontsize=9)
    axes.grid(axis="x" if lying else "y", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    # A tall panel is read from either end.
    axes.tick_params(length=0, labelsize=8, labeltop=lying)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _panel(axes: Axes, name: str, task: TaskReport, baseline: TaskReport | None) -> None:
    """One task's bars of its headline metric."""
    metric, source = task["metrics"][0], source_language(task)
    percent = {code: 100 * scores[metric] for code, scores in task["languages"].items()}
    compared = {code: 100 * value for code, value in baseline_scores(task, baseline).items()}
    codes = sorted(percent, key=lambda code: (code != source, -percent[code], code))
    lying = len(codes) >= LYING_FROM
    # A run without any right answer still has a scale.
    limit = 1.12 * max(1.0, *percent.values(), *compared.values())
    draw: Callable[..., BarContainer] = axes.barh if lying else axes.bar
    width, shift = (BAR, BASELINE_BAR / 2) if compared else (BAR_ALONE, 0.0)
    colours = [SOURCE_COLOUR if code == source else OTHER_COLOUR for code in codes]
    own = draw([place - shift for place in range(len(codes))], [percent[code] for code in codes], width, color=colours)
    axes.bar_label(own, fmt="%.1f", padding=2, fontsize=6.5, path_effects=[withStroke(linewidth=2, foreground="white")])
    shown = [place for place, code in enumerate(codes) if code in compared]
    draw([place + BAR / 2 for place in shown], [compared[codes[p]] for p in shown], BASELINE_BAR, color=BASELINE_COLOUR)
    if task["mean_others"]:
        line = axes.axvline if lying else axes.axhline
        line(100 * task["mean_others"][metric], color=MEAN_COLOUR, linestyle="--", linewidth=1.0)
    _place(axes, codes, lying, limit, metric)
    axes.set_title(name, fontsize=10, loc="left", parse_math=False)


def _keys(report: Report, compared: bool) -> list[Patch | Line2D]:
    """The legend's entries, of what the picture shows."""
    tasks = report["tasks"].values()
    keys: list[Patch | Line2D] = []
    if any(task["source"] for task in tasks):
        keys.append(Patch(color=SOURCE_COLOUR, label="source language"))
    if any(task["mean_others"] for task in tasks):
        keys.append(Patch(color=OTHER_COLOUR, label="other languages"))
    if compared:
        keys.append(Patch(color=BASELINE_COLOUR, label="baseline"))
    if any(task["mean_others"] for task in tasks):
        keys.append(Line2D([], [], color=MEAN_COLOUR, linestyle="--", linewidth=1.0, label="mean of others"))
    return keys


def bars(report: Report, path: Path, baseline: Report | None = None) -> None:
    """Write a PNG with one panel a task: the headline metric of every language in percent.

    Args:
        report: as `report.build` makes it.
        path: of the PNG; an older one is replaced.
        baseline: another run's report, say the frozen base's; tasks and languages that it lacks have no paler bar.
    """
    tasks = report["tasks"]
    beside = {name: baseline["tasks"][name] for name in tasks if baseline and name in baseline["tasks"]}
    heights = [_height(task) for task in tasks.values()]
    # Agg through the object interface: pyplot's global state and a display are not needed.
    figure = Figure(figsize=(WIDTH, sum(heights) + 0.8), dpi=DOTS, layout="constrained")
    panels = figure.subplots(len(tasks), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (name, task) in zip(panels, tasks.items(), strict=True):
        _panel(axes, name, task, beside.get(name))
    keys = _keys(report, any(baseline_scores(tasks[name], other) for name, other in beside.items()))
    # The title is the legend's, since a figure's own title and a legend above the panels would lie on each other.
    title = "\n".join(textwrap.wrap(f"{report['model']}: {report['method']}", 90))
    legend = figure.legend(
        handles=keys,
        title=title,
        title_fontsize=11,
        alignment="left",
        loc="outside upper left",
        ncols=len(keys),
        fontsize=8,
        frameon=False,
    )
    legend.get_title().set_parse_math(False)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    write_whole(path, content.getvalue())
