"""python -m benchmarks.real_picture: draws results/starts.json as docs/real.png.

Left: held-out loss after 0, 50 and 100 steps, the mean over the seeds of each method, with thin lines for the seeds.
Right: training losses beside those of PEFT on the same batches.
"""

import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from benchmarks.starts import FILE
from jaxprefix.evaluation.plots.canvas import figure, legend, plain, save

PICTURE = Path(__file__).parents[1] / "docs" / "real.png"
COLOURS = ("#4C72B0", "#DD8452", "#55A868", "#C44E52", "#8172B3", "#937860", "#DA8BC3", "#8C8C8C", "#CCB974")


def held_out(axes: Axes, curves: dict[str, list[dict[str, Any]]]) -> list[Line2D]:
    keys = []
    for colour, (name, runs) in zip(COLOURS, curves.items(), strict=False):
        steps = [int(step) for step in runs[0]["held_out"]]
        losses = list(zip(*(run["held_out"].values() for run in runs), strict=True))
        axes.plot(steps, [sum(each) / len(each) for each in losses], color=colour, marker="o", markersize=3)
        for run in runs:
            axes.plot(steps, list(run["held_out"].values()), color=colour, alpha=0.3, linewidth=0.6)
        keys.append(Line2D([], [], color=colour, label=f"{name} ({len(runs)} seed{'s' * (len(runs) > 1)})"))
    axes.set_title("held-out loss by step", fontsize=8, loc="left")
    return keys


def beside_peft(axes: Axes, curves: dict[str, dict[str, list[float]]]) -> list[Line2D]:
    keys = []
    for colour, (name, losses) in zip(("#222222", "#999999"), curves.items(), strict=True):
        axes.plot(losses["ours"], color=colour, linewidth=1)
        axes.plot(losses["peft"], color=colour, linestyle="none", marker="x", markersize=4)
        keys.append(Line2D([], [], color=colour, marker="x", markersize=4, label=f"{name}: ours, PEFT's as crosses"))
    axes.set_title("training loss by step, beside PEFT", fontsize=8, loc="left")
    return keys


def draw(results: dict[str, Any], path: Path) -> None:
    on = figure(3.6)
    left, right = on.subplots(1, 2)
    left.legend(handles=held_out(left, results["curves"]), fontsize=7, frameon=False)
    right.legend(handles=beside_peft(right, results["peft"]), fontsize=7, frameon=False)
    plain(left, "y")
    plain(right, "y")
    legend(on, "SmolLM2-135M-Instruct on TyDiQA in English", [])
    save(on, path)


if __name__ == "__main__":
    draw(json.loads(FILE.read_text(encoding="utf-8")), PICTURE)
