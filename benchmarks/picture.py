"""python -m benchmarks.picture: draws the newest ratios to the peer into docs/performance.png."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from benchmarks.sides import RESULTS
from jaxprefix.evaluation.plots.canvas import (
    BASELINE_COLOUR,
    LYING_HEIGHT,
    MEAN_COLOUR,
    OTHER_COLOUR,
    figure,
    labels,
    legend,
    plain,
    save,
)

PICTURE = Path(__file__).parents[1] / "docs" / "performance.png"


MOST = 12  # bars
METHODS = ("prefix", "lora", "full", "none")
BYPASSED = "MKL bypassed"  # the peer at its best, on processors of AMD too


def chosen(rows: Sequence[Mapping[str, Any]]) -> tuple[str, list[tuple[str, float, float | None]]]:
    """The device with the most rows, and its bars: label, ratio to the fastest form of the peer, and target."""
    rows = [row for row in rows if row["ratio"] is not None and row["peer"] and row["method"] in METHODS]
    device = Counter(row["device"] for row in rows).most_common(1)[0][0]
    bars = []
    for row in rows:
        if row["device"] == device:
            label = row["work"] if row["method"] == "none" else f"{row['method']}: {row['work']}"
            bars.append((label, row.get("ratio_bypassed") or row["ratio"], row["target"]))
    return device, bars[:MOST]


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """One bar per ratio, with its target, and a line at 1."""
    device, bars = chosen(rows)
    names, ratios, targets = zip(*bars, strict=True)
    picture = figure(1.2 + 1.5 * LYING_HEIGHT * len(names))
    axes = picture.subplots()
    heights = list(range(len(names)))
    met = [target is not None and ratio >= max(target, 1) for ratio, target in zip(ratios, targets, strict=True)]
    axes.barh(heights, ratios, color=[OTHER_COLOUR if each else BASELINE_COLOUR for each in met], height=0.7)
    for height, target in zip(heights, targets, strict=True):
        if target is not None:
            axes.plot([target] * 2, [height - 0.42, height + 0.42], color=MEAN_COLOUR, linewidth=1.5)
    axes.axvline(1, color=MEAN_COLOUR, linewidth=0.8, linestyle="--")
    labels(axes, heights, ratios, [None] * len(names), horizontal=True)
    axes.set_yticks(heights, names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.1 * max(*ratios, *(target or 0 for target in targets)))
    plain(axes, "x")
    keys = [
        Patch(color=OTHER_COLOUR, label="at or above the target"),
        Patch(color=BASELINE_COLOUR, label="below the target, or without a target"),
        Line2D([], [], color=MEAN_COLOUR, linewidth=1.5, label="target"),
        Line2D([], [], color=MEAN_COLOUR, linewidth=0.8, linestyle="--", label="as fast"),
    ]
    legend(picture, f"Times as fast as transformers and PEFT ({device}, {BYPASSED})", keys)
    save(picture, path)


if __name__ == "__main__":
    draw(json.loads((RESULTS / "latest.json").read_text()), PICTURE)
