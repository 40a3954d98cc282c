"""Colours, sizes, the legend and reproducible files of all plots."""

import io
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from jaxprefix.evaluation.report.intervals import Estimate
from jaxprefix.io.atomic import write_atomically

# From the colour-blind-safe palette of Okabe and Ito, https://jfly.uni-koeln.de/color/
SOURCE_COLOUR = "#E69F00"
OTHER_COLOUR = "#0072B2"
BASELINE_COLOUR = "#A9CCE3"
MEAN_COLOUR = "#333333"
INTERVAL_COLOUR = "#000000"

WIDTH = 8.0  # inches
DOTS = 144  # per inch
LYING_HEIGHT = 0.19  # inches per horizontal bar
LEGEND_COLUMNS = 8  # of short labels, in the width

Ends = tuple[float, float] | None  # the ends of an interval in percent, or None

INTERVAL_KEY = Line2D([], [], color=INTERVAL_COLOUR, linewidth=0.9, marker="|", markersize=5, label="95% interval")


def figure(height: float) -> Figure:
    """An empty figure. It does not use pyplot, which has global state and may need a display."""
    return Figure(figsize=(WIDTH, height), dpi=DOTS, layout="constrained")


def legend(on: Figure, title: str, keys: Sequence[Patch | Line2D]) -> None:
    """The legend above the panels. It includes the title, because a separate title would overlap it."""
    rows = max(1, math.ceil(len(keys) / LEGEND_COLUMNS))
    result = on.legend(
        handles=list(keys),
        title="\n".join(textwrap.wrap(title, 90)),
        title_fontsize=11,
        alignment="left",
        loc="outside upper left",
        ncols=max(1, math.ceil(len(keys) / rows)),
        fontsize=8,
        frameon=False,
    )
    result.get_title().set_parse_math(False)


def plain(axes: Axes, grid: str) -> None:
    """A thin grid along one axis, behind the data, and no box."""
    axes.grid(axis=grid, color="#DDDDDD", linewidth=0.6)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def percent_ticks(limit: float) -> list[float]:
    """The ticks of a scale from 0 to `limit`. `limit` leaves room for labels, but no tick is above 100."""
    return [tick for tick in MaxNLocator(5).tick_values(0.0, limit) if 0.0 <= tick <= min(limit, 100.0)]


def ends(estimate: Estimate) -> Ends:
    """The ends of the interval in percent, or None."""
    low, high = estimate["low"], estimate["high"]
    return None if low is None or high is None else (100 * low, 100 * high)


def whiskers(axes: Axes, positions: Sequence[float], spans: Sequence[Ends], horizontal: bool) -> None:
    """The intervals as lines with caps, over the bars that have one. `horizontal` says how the bars are."""
    known = [(position, span) for position, span in zip(positions, spans, strict=True) if span]
    if not known:
        return
    middles, halves = [(low + high) / 2 for _, (low, high) in known], [(high - low) / 2 for _, (low, high) in known]
    bars = [position for position, _ in known]
    x, y, x_halves, y_halves = (middles, bars, halves, None) if horizontal else (bars, middles, None, halves)
    container = axes.errorbar(
        x, y, y_halves, x_halves, fmt="none", ecolor=INTERVAL_COLOUR, elinewidth=0.8, capsize=1.5, capthick=0.8
    )
    _, caps, lines = container.lines
    for line in (*lines, *caps):  # visible both on and beyond a bar
        line.set_path_effects([withStroke(linewidth=2, foreground="white")])


def labels(
    axes: Axes, positions: Sequence[float], values: Sequence[float], spans: Sequence[Ends], horizontal: bool
) -> None:
    """The value of each bar, after its end or after the end of its whisker."""
    for position, value, span in zip(positions, values, spans, strict=True):
        end = max(value, span[1]) if span else value
        axes.annotate(
            f"{value:.1f}",
            (end, position) if horizontal else (position, end),
            xytext=(3, 0) if horizontal else (0, 3),
            textcoords="offset points",
            ha="left" if horizontal else "center",
            va="center" if horizontal else "bottom",
            fontsize=6.5,
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )


def save(on: Figure, *paths: Path) -> None:
    """Saves the figure in the formats of the names. Older files are replaced. Equal figures give equal bytes."""
    for path in paths:
        content, kind = io.BytesIO(), path.suffix.removeprefix(".")
        with matplotlib.rc_context({"svg.hashsalt": "jaxprefix"}):  # without it, ids in the SVG are random
            on.savefig(content, format=kind, metadata={"Date": None} if kind == "svg" else None)
        write_atomically(path, content.getvalue())
