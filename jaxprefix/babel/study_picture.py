"""The picture of a study: a panel per task, with the scores of every method by resource class."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from matplotlib.lines import Line2D

from jaxprefix.evaluation.plots import canvas

# From the colour-blind-safe palette of Okabe and Ito, one colour per method; the frozen base is grey.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#000000")
MARKERS = "osD^vPX*"
BASE_COLOUR = "#888888"
COLUMNS = ("en", "class 5", "class 4", "class 3", "class 2", "class 1")


def draw(
    results: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]], chance: Mapping[str, float], path: Path
) -> None:
    """Writes the picture, and replaces an older one.

    Args:
        results: task -> method ("none" is the frozen base) -> column -> the score of each seed, in 0..1.
        chance: task -> accuracy of random guessing.
        path: a .png or .svg file.
    """
    columns_of_panels = min(2, len(results))
    rows_of_panels = -(-len(results) // columns_of_panels)
    figure = canvas.figure(2.9 * rows_of_panels + 0.6)
    panels = figure.subplots(rows_of_panels, columns_of_panels, squeeze=False).flatten()
    styles: dict[str, dict[str, str]] = {}
    for axes, (task, methods) in zip(panels, results.items(), strict=False):
        columns = [name for name in COLUMNS if any(name in row for row in methods.values())]
        for method, row in methods.items():
            index = len(styles.keys() - {"none"}) % len(COLOURS)
            trained_style = {"color": COLOURS[index], "marker": MARKERS[index], "linestyle": "-"}
            base_style = {"color": BASE_COLOUR, "marker": ".", "linestyle": "--"}
            style = styles.setdefault(method, base_style if method == "none" else trained_style)
            points = [(x, row[name]) for x, name in enumerate(columns) if name in row]
            means = [100 * fmean(scores) for _, scores in points]
            axes.plot([x for x, _ in points], means, linewidth=1.3, markersize=4.5, **style)  # type: ignore[arg-type]
            for x, scores in points:
                if len(scores) > 1:
                    axes.plot([x, x], [100 * min(scores), 100 * max(scores)], color=style["color"], linewidth=0.8)
        if task in chance:
            axes.axhline(100 * chance[task], color="#333333", linewidth=0.8, linestyle=":")
        axes.set_title(task, fontsize=10, loc="left")
        axes.set_xticks(range(len(columns)), labels=columns)
        axes.set_ylim(0, 104)
        canvas.plain(axes, "y")
    for axes in panels[len(results) :]:
        axes.set_visible(False)
    keys = [
        Line2D([], [], label="frozen base" if method == "none" else method, markersize=4.5, **style)  # type: ignore[arg-type]
        for method, style in styles.items()
    ]
    keys.append(Line2D([], [], label="chance", color="#333333", linewidth=0.8, linestyle=":"))
    title = "Trained in English: percent in English, and by resource class of the other languages"
    canvas.legend(figure, title, keys)
    canvas.save(figure, path)
