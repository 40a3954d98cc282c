"""The plots of a probe: for each figure and model the curves by layer, and a heat map of layers and languages."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from jaxprefix.evaluation.plots import KINDS, canvas
from jaxprefix.probe.measure import ALL, CONTROL

PANEL = 2.6  # the least height of a model's panels, in inches
CURVES = "viridis"  # the colours of the languages, in their order
NOT_DRAWN = ("uniform share", "entropy")  # beside the figures that they explain, in probes.json
AVERAGES: dict[str, Literal["-", "--"]] = {ALL: "-", CONTROL: "--"}


def draw(result: Mapping[str, Any], directory: Path) -> list[Path]:
    """Writes a plot per figure with layers, as .png and .svg, and returns the PNGs. Older files are replaced."""
    written = []
    for probe, figures in result["probes"].items():
        for name, by_model in figures.items():
            has_layers = any("layers" in values for by_code in by_model.values() for values in by_code.values())
            if has_layers and name not in NOT_DRAWN:
                stem = f"probe-{probe}-{name}".translate(str.maketrans(" ()", "-__")).strip("_")
                paths = [directory / f"{stem}.{kind}" for kind in KINDS]
                canvas.save(_figure(f"{probe}: {name}", by_model, result["layers"]), *paths)
                written.append(paths[0])
    return written


def _figure(title: str, by_model: Mapping[str, Mapping[str, Any]], layers: int) -> Figure:
    """A row of panels per model. Layer 0 has the embeddings, if the figure has them, and layer 1 is the first block."""
    languages = [code for code in next(iter(by_model.values())) if code not in AVERAGES]
    height = max(PANEL, 0.16 * len(languages) + 0.8)
    figure = canvas.figure(height * len(by_model) + 0.8)
    panels = figure.subplots(len(by_model), 2, squeeze=False)
    grids = {model: _grid(values, languages) for model, values in by_model.items()}
    rows = [_row(values) for by_code in by_model.values() for values in by_code.values()]
    low, high = float(np.nanmin(rows)), float(np.nanmax(rows))
    high = max(high, low + 0.01)
    colours = [colormaps[CURVES](share) for share in np.linspace(0, 0.95, len(languages))]
    for (curves, heat), (model, grid) in zip(panels, grids.items(), strict=True):
        numbers = range(layers + 1 - grid.shape[1], layers + 1)
        for colour, row in zip(colours, grid, strict=True):
            curves.plot(numbers, row, color=colour, linewidth=0.8)
        for code, style in AVERAGES.items():
            if code in by_model[model]:
                curves.plot(
                    numbers, _row(by_model[model][code]), color=canvas.MEAN_COLOUR, linewidth=1.6, linestyle=style
                )
        curves.set_ylim(low - 0.04 * (high - low), high + 0.04 * (high - low))
        canvas.plain(curves, "y")
        curves.xaxis.set_major_locator(MaxNLocator(integer=True))
        _heat(figure, heat, grid, languages, numbers[0], (low, high))
        for axes in (curves, heat):
            axes.set_title(model, fontsize=9, loc="left", parse_math=False)
            axes.set_xlabel("layer", fontsize=8)
    keys = [Line2D([], [], color=colour, label=code) for code, colour in zip(languages, colours, strict=True)]
    labels = {ALL: "mean of languages", CONTROL: CONTROL}
    present = [code for code in AVERAGES if any(code in values for values in by_model.values())]
    keys += [Line2D([], [], color=canvas.MEAN_COLOUR, linestyle=AVERAGES[code], label=labels[code]) for code in present]
    canvas.legend(figure, title, keys)
    return figure


def _heat(
    figure: Figure, axes: Axes, grid: np.ndarray, languages: list[str], first: int, ends: tuple[float, float]
) -> None:
    rows, columns = grid.shape
    extent = (first - 0.5, first + columns - 0.5, rows - 0.5, -0.5)
    low, high = ends
    image = axes.imshow(grid, aspect="auto", vmin=low, vmax=high, cmap=CURVES, interpolation="nearest", extent=extent)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_yticks(range(len(languages)), labels=languages, parse_math=False)
    axes.tick_params(length=0, labelsize=6.5)
    figure.colorbar(image, ax=axes, fraction=0.05).ax.tick_params(labelsize=7)


def _grid(values: Mapping[str, Any], languages: list[str]) -> np.ndarray:
    """The values of layers by language; NaN where an estimate does not exist."""
    return np.array([_row(values[code]) for code in languages])


def _row(values: Mapping[str, Any]) -> list[float]:
    return [np.nan if estimate is None else estimate["value"] for estimate in values["layers"]]
