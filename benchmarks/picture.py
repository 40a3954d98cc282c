"""python -m benchmarks.picture: draws the newest ratios to the peer as docs/performance.png."""

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
    """A bar a ratio, with its target."""
    shown = [row for row in rows if row["ratio"] is not None and row["peer"]]
    on = figure(1.2 + 1.5 * LYING_HEIGHT * len(shown))
    axes = on.subplots()
    places, ratios = list(range(len(shown))), [row["ratio"] for row in shown]
    axes.barh(places, ratios, color=[OTHER_COLOUR if row["met"] else BASELINE_COLOUR for row in shown], height=0.7)
    for place, row in zip(places, shown, strict=True):
        if row["target"] is not None:
            axes.plot([row["target"]] * 2, [place - 0.42, place + 0.42], color=MEAN_COLOUR, linewidth=1.5)
    labels(axes, places, ratios, [None] * len(shown), horizontal=True)
    axes.set_yticks(places, [f"{row['method']}: {row['work']}; {row['device']}" for row in shown])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.1 * max(ratios))
    plain(axes, "x")
    keys = [
        Patch(color=OTHER_COLOUR, label="at the target or above, or without one"),
        Patch(color=BASELINE_COLOUR, label="below it"),
        Line2D([], [], color=MEAN_COLOUR, linewidth=1.5, label="target"),
    ]
    legend(on, "Times as fast as transformers and PEFT", keys)
    save(on, path)


if __name__ == "__main__":
    draw(json.loads((RESULTS / "latest.json").read_text()), PICTURE)
