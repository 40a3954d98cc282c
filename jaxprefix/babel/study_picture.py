"""The picture of a study: scores of every method against the resource class, English first, a panel a task."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from matplotlib.lines import Line2D

from jaxprefix.evaluation.plots import canvas

# From the colour-blind-safe palette of Okabe and Ito, in the order of the methods; the frozen base is grey.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")
MARKERS = "osD^vP"
BASE_COLOUR = "#888888"
COLUMNS = ("en", "class 5", "class 4", "class 3", "class 2", "class 1")


def draw(
    found: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]], chance: Mapping[str, float], path: Path
) -> None:
    """Writes the picture, replacing an older one.

    Args:
        found: task -> method ("none" is the frozen base) -> column -> the score of each seed, in 0..1.
        chance: task -> what a guess scores.
        path: a .png or .svg.
    """
    across = min(2, len(found))
    down = -(-len(found) // across)
    figure = canvas.figure(2.9 * down + 0.6)
    panels = figure.subplots(down, across, squeeze=False).flatten()
    styles: dict[str, dict[str, str]] = {}
    for axes, (task, methods) in zip(panels, found.items(), strict=False):
        columns = [name for name in COLUMNS if any(name in row for row in methods.values())]
        for method, row in methods.items():
            place = len([each for each in styles if each != "none"]) % len(COLOURS)
            learnt = {"color": COLOURS[place], "marker": MARKERS[place], "linestyle": "-"}
            base = {"color": BASE_COLOUR, "marker": ".", "linestyle": "--"}
            style = styles.setdefault(method, base if method == "none" else learnt)
            known = [(at, row[name]) for at, name in enumerate(columns) if name in row]
            means = [100 * fmean(values) for _, values in known]
            axes.plot([at for at, _ in known], means, linewidth=1.3, markersize=4.5, **style)  # type: ignore[arg-type]
            for at, values in known:
                if len(values) > 1:
                    axes.plot([at, at], [100 * min(values), 100 * max(values)], color=style["color"], linewidth=0.8)
        if task in chance:
            axes.axhline(100 * chance[task], color="#333333", linewidth=0.8, linestyle=":")
        axes.set_title(task, fontsize=10, loc="left")
        axes.set_xticks(range(len(columns)), labels=columns)
        axes.set_ylim(0, 104)
        canvas.plain(axes, "y")
    for axes in panels[len(found) :]:
        axes.set_visible(False)
    keys = [
        Line2D([], [], label="frozen base" if method == "none" else method, markersize=4.5, **style)  # type: ignore[arg-type]
        for method, style in styles.items()
    ]
    keys.append(Line2D([], [], label="a guess", color="#333333", linewidth=0.8, linestyle=":"))
    title = "Trained in English: percent there, and where the model has read ever less"
    canvas.legend(figure, title, keys)
    canvas.save(figure, path)
