"""python -m benchmarks.picture: draws the newest ratios to the peer into docs/performance.png."""

import json
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


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """One bar per ratio, with its target."""
    shown = [row for row in rows if row["ratio"] is not None and row["peer"]]
    picture = figure(1.2 + 1.5 * LYING_HEIGHT * len(shown))
    axes = picture.subplots()
    heights, ratios = list(range(len(shown))), [row["ratio"] for row in shown]
    axes.barh(heights, ratios, color=[OTHER_COLOUR if row["met"] else BASELINE_COLOUR for row in shown], height=0.7)
    for height, row in zip(heights, shown, strict=True):
        if row["target"] is not None:
            axes.plot([row["target"]] * 2, [height - 0.42, height + 0.42], color=MEAN_COLOUR, linewidth=1.5)
    labels(axes, heights, ratios, [None] * len(shown), horizontal=True)
    axes.set_yticks(heights, [f"{row['method']}: {row['work']}; {row['device']}" for row in shown])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.1 * max(ratios))
    plain(axes, "x")
    keys = [
        Patch(color=OTHER_COLOUR, label="at or above the target, or without a target"),
        Patch(color=BASELINE_COLOUR, label="below the target"),
        Line2D([], [], color=MEAN_COLOUR, linewidth=1.5, label="target"),
    ]
    legend(picture, "Times as fast as transformers and PEFT", keys)
    save(picture, path)


if __name__ == "__main__":
    draw(json.loads((RESULTS / "latest.json").read_text()), PICTURE)
