"""The pictures of a study's tables: lines over an axis, and heat maps of languages, groups, or source × target."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from jaxprefix.evaluation.plots import canvas
from jaxprefix.study.matrix import source_by_target
from jaxprefix.study.plan import Plan
from jaxprefix.study.rows import name_of, text_of, title_of, value_of
from jaxprefix.study.specification import Table
from jaxprefix.study.tables import group_names, language_codes, rows_by_task

# From the colour-blind-safe palette of Okabe and Ito, https://jfly.uni-koeln.de/color/
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#000000")
MARKERS = "osD^vPX*"
ENDINGS = (".png", ".svg")
ROW = 0.24  # inches per row of a heat map
MOST = 130  # columns of a heat map
NAMED = 40  # columns with their values

Lines = Sequence[tuple[str, Sequence[float | None]]]  # a name and its values in percent


def draw(plan: Plan, results: Mapping[str, Any], directory: Path) -> dict[str, list[str]]:
    """Draws every table that has figures, as PNG and SVG. Returns the names of the PNGs by table."""
    names: dict[str, list[str]] = {table.name: [] for table in plan.specification.tables}
    for table in plan.specification.tables:
        if table.kind == "parameters":
            continue
        for task, rows in rows_by_task(plan, table, results).items():
            if done := [row for row in rows if task in row["tasks"]]:
                stem = "".join(letter if letter.isalnum() else "-" for letter in f"{table.name} {task}".lower())
                canvas.save(_figure(table, task, done), *(directory / f"{stem}{ending}" for ending in ENDINGS))
                names[table.name].append(f"{stem}.png")
    return names


def _figure(table: Table, task: str, rows: Sequence[Mapping[str, Any]]) -> Figure:
    metric = rows[0]["tasks"][task]["metric"]
    if table.kind == "line":
        return lines(table, task, rows, f"{table.name}: {task}, {metric} in percent")
    if table.kind == "matrix":
        return _maps(table, task, rows)
    titles = [name_of(row["labels"]) or table.name for row in rows]
    if table.kind == "groups":
        columns = group_names(table, task, rows)
        values = [[value_of(row["tasks"][task]["means"].get(f"{table.by} {name}")) for name in columns] for row in rows]
    else:
        columns = language_codes(task, rows)[:MOST]
        values = [[value_of(row["tasks"][task]["languages"].get(code)) for code in columns] for row in rows]
    figure = canvas.figure(ROW * len(rows) + 1.4)
    heat_map(figure.subplots(), columns, list(zip(titles, map(_percents, values), strict=True)))
    canvas.legend(figure, f"{table.name}: {task}, {metric} in percent", [])
    return figure


def lines(table: Table, task: str, rows: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """The mean of the other languages over the axis `x`, with intervals, and dashed the training language.

    There is a colour for each setting of the other axes.
    """
    figure = canvas.figure(3.4)
    axes: Axes = figure.subplots()
    names = [name_of({axis: value for axis, value in row["labels"].items() if axis != table.x}) for row in rows]
    ticks = [value for value in dict.fromkeys(row["labels"].get(table.x) for row in rows) if value is not None]
    keys: list[Line2D] = []
    for number, key in enumerate(dict.fromkeys(names)):
        members = [row for row, name in zip(rows, names, strict=True) if name == key]
        style: dict[str, Any] = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
        for name, dashes in (("source", "--"), ("others", "-")):
            points = _points(table, task, members, name, ticks)
            axes.plot(
                [x for x, _, _ in points], [y for _, y, _ in points], dashes, linewidth=1.3, markersize=4.5, **style
            )
        for x, _, ends in points:  # of the other languages
            if ends:
                axes.plot([x, x], ends, color=style["color"], linewidth=0.8)
        keys.append(Line2D([], [], label=key or "other languages", linewidth=1.3, markersize=4.5, **style))
    keys.append(Line2D([], [], label="training language", linewidth=1.3, linestyle="--", color="grey"))
    axes.set_xticks(range(len(ticks)), labels=list(map(text_of, ticks)))
    axes.set_xlabel(title_of(table.x or ""), fontsize=9, parse_math=False)
    canvas.plain(axes, "y")
    canvas.legend(figure, title, keys)
    return figure


def _points(
    table: Table, task: str, rows: Sequence[Mapping[str, Any]], name: str, ticks: Sequence[Any]
) -> list[tuple[int, float, canvas.Ends]]:
    """(place of the tick, percent, ends of the interval) of the mean with this name, where a row has it.

    A row without the axis has a point at every tick.
    """
    points = []
    for row in rows:
        means, value = row["tasks"][task]["means"], row["labels"].get(table.x)
        if estimate := means.get(name) or (means["all"] if name == "others" else None):
            for x in [ticks.index(value)] if value is not None else range(len(ticks)):
                points.append((x, 100 * estimate["value"], canvas.ends(estimate)))
    return sorted(points, key=lambda point: point[0])


def heat_map(axes: Axes, columns: Sequence[str], rows: Lines, signed: bool = False) -> None:
    """Values in percent as colours, and as numbers if there is room. Missing ones are white."""
    grid = [[float("nan") if value is None else value for value in values] for _, values in rows]
    known = [value for line in grid for value in line if value == value]
    most = max(map(abs, known), default=1.0) or 1.0
    axes.imshow(grid, cmap="RdBu" if signed else "Blues", vmin=-most if signed else 0, vmax=most, aspect="auto")
    axes.set_yticks(range(len(rows)), labels=[name for name, _ in rows], fontsize=7, parse_math=False)
    axes.set_xticks(range(len(columns)), labels=columns, fontsize=7 if len(columns) <= NAMED else 3, rotation=90)
    axes.tick_params(length=0)
    if len(columns) > NAMED:
        return
    for y, line in enumerate(grid):
        for x, value in enumerate(line):
            if value == value:
                dark = abs(value) > 0.6 * most
                text = f"{value:+.0f}" if signed else f"{value:.0f}"
                axes.text(x, y, text, ha="center", va="center", fontsize=6, color="white" if dark else "black")


def _maps(table: Table, task: str, rows: Sequence[Mapping[str, Any]]) -> Figure:
    """A source × target map for each setting of the other axes."""
    found = source_by_target(task, rows)
    figure = canvas.figure(sum(ROW * len(lines) + 1.0 for _, lines in found.values()) + 0.6)
    panels = figure.subplots(len(found), 1, squeeze=False)[:, 0]
    for panel, (title, (columns, lines)) in zip(panels, found.items(), strict=True):
        heat_map(panel, columns, [(source, _percents(values)) for source, values, _ in lines], signed=True)
        panel.set_title(title, fontsize=9, loc="left", parse_math=False)
        panel.set_ylabel("trained in", fontsize=8)
    canvas.legend(figure, f"{table.name}: {task}", [])
    return figure


def _percents(values: Sequence[float | None]) -> list[float | None]:
    return [None if value is None else 100 * value for value in values]
