"""The tables of a probe: a line per language, a column per model."""

from collections.abc import Mapping
from typing import Any

from jaxprefix.evaluation.report.cells import MISSING, Cells
from jaxprefix.evaluation.report.intervals import Estimate
from jaxprefix.evaluation.report.terminal import Fitted, fitted
from jaxprefix.probe.lost_scores import OTHERS
from jaxprefix.probe.measure import ALL, CONTROL

CLOSING = (ALL, CONTROL, OTHERS)  # lines that are not of a language
POOLED = {
    "mean": "mean of layers",
    "max": "best layer",
    "sum": "all layers",
    "last": "last layer",
    "relative": "relative",
}


def tables(result: Mapping[str, Any]) -> list[Fitted]:
    """A table per figure, without intervals on a narrow terminal. Figures by head are in probes.json alone."""
    models, found = list(result["models"]), []
    for probe, figures in result["probes"].items():
        for figure, by_model in figures.items():
            some = next(iter(next(iter(by_model.values())).values()))
            for pooling, words in POOLED.items():
                if pooling in some:
                    title = f"{probe}: {figure}"
                    title += f", {words}" if "layers" in some or pooling == "relative" else ""
                    found.append(fitted(title, *(_cells(models, by_model, pooling, shown) for shown in (True, False))))
    return found


def _cells(models: list[str], by_model: Mapping[str, Mapping[str, Any]], pooling: str, intervals: bool) -> Cells:
    codes = list(dict.fromkeys(code for values in by_model.values() for code in values))

    def line(code: str) -> list[str]:
        estimates = [by_model.get(model, {}).get(code, {}).get(pooling) for model in models]
        return [code, *(_text(estimate, intervals) for estimate in estimates)]

    return Cells(
        ["language", *models],
        [[line(code) for code in codes if code not in CLOSING]],
        [line(code) for code in codes if code in CLOSING],
    )


def _text(estimate: Estimate | None, intervals: bool) -> str:
    """An estimate with its interval, such as "0.612 (0.540..0.680)"."""
    if estimate is None:
        return MISSING
    low, high = estimate["low"], estimate["high"]
    value = f"{estimate['value']:.3f}"
    if low is None:  # a count, or a figure of the parameters
        return value.removesuffix(".000")
    return value if not intervals or low is None or high is None else f"{value} ({low:.3f}..{high:.3f})"
