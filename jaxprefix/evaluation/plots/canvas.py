"""What all pictures share: colours, sizes, a legend with the title, and files that equal figures make equal."""

import io
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
DOTS = 144  # an inch
LYING_HEIGHT = 0.19  # inches a lying bar

Ends = tuple[float, float] | None  # of an interval, in percent; None where there is none

INTERVAL_KEY = Line2D([], [], color=INTERVAL_COLOUR, linewidth=0.9, marker="|", markersize=5, label="95% interval")


def figure(height: float) -> Figure:
    """An empty one; through the object interface, since pyplot's global state and a display are not needed."""
    return Figure(figsize=(WIDTH, height), dpi=DOTS, layout="constrained")


def legend(on: Figure, title: str, keys: Sequence[Patch | Line2D]) -> None:
    """Above the panels, with the picture's title: a figure's own title and a legend there would lie on each other."""
    found = on.legend(
        handles=list(keys),
        title="\n".join(textwrap.wrap(title, 90)),
        title_fontsize=11,
        alignment="left",
        loc="outside upper left",
        ncols=max(1, len(keys)),
        fontsize=8,
        frameon=False,
    )
    found.get_title().set_parse_math(False)


def plain(axes: Axes, grid: str) -> None:
    """Thin lines along one axis behind what is drawn, and no box."""
    axes.grid(axis=grid, color="#DDDDDD", linewidth=0.6)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def percent_ticks(limit: float) -> list[float]:
    """Of a scale from 0 to `limit`, which leaves room for values behind the last bar: none above 100."""
    return [tick for tick in MaxNLocator(5).tick_values(0.0, limit) if 0.0 <= tick <= min(limit, 100.0)]


def ends(estimate: Estimate) -> Ends:
    low, high = estimate["low"], estimate["high"]
    return None if low is None or high is None else (100 * low, 100 * high)


def whiskers(axes: Axes, places: Sequence[float], spans: Sequence[Ends], lying: bool) -> None:
    """An interval's line with caps over each bar that has one."""
    known = [(place, span) for place, span in zip(places, spans, strict=True) if span]
    if not known:
        return
    middles, halves = [(low + high) / 2 for _, (low, high) in known], [(high - low) / 2 for _, (low, high) in known]
    across = [place for place, _ in known]
    x, y, x_halves, y_halves = (middles, across, halves, None) if lying else (across, middles, None, halves)
    drawn = axes.errorbar(
        x, y, y_halves, x_halves, fmt="none", ecolor=INTERVAL_COLOUR, elinewidth=0.8, capsize=1.5, capthick=0.8
    )
    _, caps, lines = drawn.lines
    for line in (*lines, *caps):  # to be seen on a bar as well as behind it
        line.set_path_effects([withStroke(linewidth=2, foreground="white")])


def labels(axes: Axes, places: Sequence[float], values: Sequence[float], spans: Sequence[Ends], lying: bool) -> None:
    """The value of each bar behind its end, or behind the whisker that reaches further."""
    for place, value, span in zip(places, values, spans, strict=True):
        end = max(value, span[1]) if span else value
        axes.annotate(
            f"{value:.1f}",
            (end, place) if lying else (place, end),
            xytext=(3, 0) if lying else (0, 3),
            textcoords="offset points",
            ha="left" if lying else "center",
            va="center" if lying else "bottom",
            fontsize=6.5,
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )


def save(on: Figure, *paths: Path) -> None:
    """Files in the formats of their names, replacing older ones; the same figures give the same bytes."""
    for path in paths:
        content, kind = io.BytesIO(), path.suffix.removeprefix(".")
        with matplotlib.rc_context({"svg.hashsalt": "jaxprefix"}):  # else the ids in it are random
            on.savefig(content, format=kind, metadata={"Date": None} if kind == "svg" else None)
        write_atomically(path, content.getvalue())
