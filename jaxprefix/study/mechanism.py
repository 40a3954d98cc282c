"""What a study's probes found: their figures for each row, and their correlation with transfer over languages."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any, TypedDict

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from jaxprefix.evaluation import statistics
from jaxprefix.evaluation.figures import Figures
from jaxprefix.evaluation.report.cells import MISSING, Cells
from jaxprefix.evaluation.report.intervals import Estimate
from jaxprefix.probe.probe import BASE
from jaxprefix.probe.tables import CLOSING, POOLED
from jaxprefix.study.rows import axes_of, labels_of, title_of
from jaxprefix.tasks.languages import same_language

DIGITS = 9  # after the point; what differs by less is a tie, and not a rounding error that makes ranks
LEAST = 4  # languages; the correlation of fewer says nothing

Probes = Mapping[str, Any]  # the content of a run's probes.json
Row = Mapping[str, Any]  # of study.json


class ProbeFigures(TypedDict):
    """One figure of a probe for a row, averaged over the seeds. Where it has layers, it is their mean."""

    languages: dict[str, float]
    mean: float  # over the languages
    gap: dict[str, Estimate | None]  # by task: its correlation with the transfer gap; None if it does not exist


def probe_figures(probes: Sequence[Probes], tasks: Mapping[str, Figures]) -> dict[str, ProbeFigures]:
    """The figures of a row, such as "mexa score", from its runs' probes.json and its figures on the tasks."""
    by_seed = [dict(_by_language(result)) for result in probes]
    figures: dict[str, ProbeFigures] = {}
    for name, first in by_seed[0].items():
        codes = [code for code in first if all(code in values.get(name, {}) for values in by_seed)]
        if codes:
            languages = {code: fmean(values[name][code] for values in by_seed) for code in codes}
            gap = {task: gap_correlation(languages, scores) for task, scores in tasks.items()}
            figures[name] = ProbeFigures(languages=languages, mean=fmean(languages.values()), gap=gap)
    return figures


def _by_language(result: Probes) -> Iterator[tuple[str, dict[str, float]]]:
    """The name of each figure, and its values for the run, by language. Figures by head alone are left out."""
    run = next(name for name in result["models"] if name != BASE)
    for probe, by_figure in result["probes"].items():
        for figure, by_model in by_figure.items():
            estimates = {code: _pooled(values) for code, values in by_model.get(run, {}).items() if code not in CLOSING}
            if known := {code: estimate["value"] for code, estimate in estimates.items() if estimate}:
                yield f"{probe} {figure}", known


def _pooled(values: Mapping[str, Any]) -> Estimate | None:
    return next((values[pooling] for pooling in POOLED if pooling in values), None)


def gap_correlation(probed: Mapping[str, float], scores: Figures) -> Estimate | None:
    """Spearman's correlation, over the other languages, of a probe's figure with the transfer gap.

    The gap is the score in the training language minus that in the language. So it has the ranks of the score's
    negative, and needs no score in the training language.
    """
    pairs = [
        (value, -estimate["value"])
        for code, estimate in scores["languages"].items()
        if code != scores["source"]
        for probed_code, value in probed.items()
        if same_language(code, probed_code)
    ]
    return correlation(np.array(pairs)) if len(pairs) >= LEAST else None


def correlation(pairs: Float[np.ndarray, "J 2"]) -> Estimate | None:
    """Spearman's correlation and its interval, a bootstrap over the pairs. None if one side has a single value.

    Resamples in which one side has a single value are left out.
    """
    random = np.random.default_rng(statistics.SEED)
    samples = random.integers(0, len(pairs), (statistics.RESAMPLES, len(pairs)))
    value, resampled = _spearman(pairs), _spearman(pairs[samples])
    if np.isnan(value):
        return None
    low, high = statistics.interval(resampled[~np.isnan(resampled)])
    return Estimate(value=float(value), low=float(low), high=float(high))


def _spearman(pairs: Float[np.ndarray, "*R J 2"]) -> np.ndarray:
    """Pearson's correlation of the ranks; NaN if one side has a single value."""
    ranks = rankdata(np.round(pairs, DIGITS), axis=-2)
    centred = ranks - ranks.mean(axis=-2, keepdims=True)
    with np.errstate(invalid="ignore"):
        return centred.prod(axis=-1).sum(axis=-1) / np.sqrt((centred**2).sum(axis=-2).prod(axis=-1))


def probe_cells(rows: Sequence[Row]) -> Cells:
    """For each figure of a probe a line for each row: its mean, and its correlation with the gap of each task."""
    axes, names, tasks = axes_of(rows), _ordered(rows, "probes"), _ordered(rows, "tasks")

    def line(name: str, row: Row) -> list[str]:
        figures = row["probes"][name]
        gaps = [_correlation_text(figures["gap"].get(task)) for task in tasks]
        return [name, *labels_of(row, axes), figure_text(figures["mean"]), *gaps]

    sections = [[line(name, row) for row in rows if name in row["probes"]] for name in names]
    return Cells(["probe", *map(title_of, axes), "mean", *(f"with the gap of {task}" for task in tasks)], sections)


def _ordered(rows: Sequence[Row], key: str) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row[key]))


def figure_text(value: float) -> str:
    return f"{value:.3f}"


def _correlation_text(estimate: Estimate | None) -> str:
    return f"{estimate['value']:+.2f} ({estimate['low']:+.2f}..{estimate['high']:+.2f})" if estimate else MISSING
