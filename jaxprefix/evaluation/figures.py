"""The figures of a row of a table on one task, from the predictions of its cells."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import stdev
from typing import Any, TypedDict

import numpy as np

from jaxprefix import tasks
from jaxprefix.evaluation import statistics
from jaxprefix.evaluation.compare import Difference, differences
from jaxprefix.evaluation.predictions import SHARED, read_answered
from jaxprefix.evaluation.report.intervals import Estimate, clusters_of, family, grouped, resource, script
from jaxprefix.evaluation.report.summary import language_of, mean, score

KEYS = {"script": script, "family": family, "resource": resource}


class Figures(TypedDict):
    """The main metric of a row on one task. Scores are in 0..1, averaged over the seeds question by question."""

    metric: str
    source: str | None  # the code of the training language
    n: int
    languages: dict[str, Estimate]
    means: dict[str, Estimate]  # all, others, source, gap, and groups of the others such as "script Cyrl"
    sd: dict[str, float]  # of "others" and "source" over the seeds; empty for one seed
    against_baseline: Difference | None  # of the mean of the others; p_holm over the rows of the table


def averaged(directories: Sequence[Any], task: str) -> list[dict[str, Any]]:
    """The prediction rows of a task, with the mean scores over runs that differ in their seed."""
    runs = [
        {key: row for key, row in read_answered(directory).items() if row["task"] == task} for directory in directories
    ]
    result = []
    for key in sorted(set.intersection(*map(set, runs))):
        first = runs[0][key]
        scores = {metric: mean(score(run[key], metric) for run in runs) for metric in first["scores"]}
        kept = {name: first[name] for name in ("task", "language", "id", SHARED) if name in first}
        result.append(kept | {"scores": scores})
    return result


def figures_of(name: str, answered: Sequence[Mapping[str, Any]], reports: Sequence[Mapping[str, Any]]) -> Figures:
    """The figures of a task's main metric, from rows that are averaged over the seeds."""
    parts = [report["tasks"][name] for report in reports]
    metric = parts[0]["metrics"][0]
    values = np.array([[score(row, metric)] for row in answered])
    sample = statistics.sample([row["language"] for row in answered], clusters_of(answered), values)
    codes, resampled = list(sample.languages), statistics.resampled_means(sample)[..., 0]
    means = sample.means[:, 0]
    has_interval = not _is_corpus(name)
    if not has_interval:  # such a metric belongs to a whole language: it is that of the reports
        means = np.array([mean(part["languages"][code][metric] for part in parts) for code in codes])
    source = language_of(reports[0]["source"], codes)
    others = [code for code in codes if code != source]

    def estimate(plus: Sequence[str], minus: Sequence[str] = ()) -> Estimate:
        weights = np.array([(code in plus) / len(plus) - (code in minus) / max(len(minus), 1) for code in codes])
        value = float(means @ weights)
        if not has_interval:
            return Estimate(value=value, low=None, high=None)
        low, high = statistics.interval(resampled @ weights)
        return Estimate(value=value, low=float(low), high=float(high))

    figures = {"all": estimate(codes)}
    figures |= {"others": estimate(others)} if others else {}
    figures |= {"source": estimate([source])} if source else {}
    figures |= {"gap": estimate([source], others)} if source and others else {}
    for what, key in KEYS.items():
        figures |= {f"{what} {group}": estimate(members) for group, members in grouped(others, key).items()}
    by_seed = {"others": others, "source": [source] if source else []}
    return Figures(
        metric=metric,
        source=source,
        n=len(answered),
        languages={code: estimate([code]) for code in codes},
        means=figures,
        sd={what: _sd(parts, metric, members) for what, members in by_seed.items() if members and len(parts) > 1},
        against_baseline=None,
    )


def _sd(reports: Sequence[Mapping[str, Any]], metric: str, codes: Sequence[str]) -> float:
    """The standard deviation, over runs that differ in their seed, of a mean over languages."""
    return stdev(mean(report["languages"][code][metric] for code in codes) for report in reports)


def difference_of(
    name: str, figures: Figures, answered: Sequence[Mapping[str, Any]], baseline: Sequence[Mapping[str, Any]]
) -> Difference | None:
    """The difference of the mean of the others from that of the baseline, over the questions that both answered.

    None without such questions, or for a metric of whole languages. `answered` and `baseline` have the rows of a task.
    """
    by_question = {(row["language"], row["id"]): row for row in baseline}
    pairs = [
        (row, by_question[row["language"], row["id"]])
        for row in answered
        if (row["language"], row["id"]) in by_question
    ]
    if not pairs or _is_corpus(name):
        return None
    compared = differences(pairs, figures["metric"], [figures["source"] or "", figures["source"] or ""])
    return compared["mean_others"] or next(iter(compared["languages"].values()))


def correct(rows: Iterable[Mapping[str, Figures]]) -> None:
    """Adds Holm's correction over the rows of a table to their differences from the baseline, task by task."""
    tests: dict[str, list[Difference]] = {}
    for tasks_of_row in rows:
        for name, figures in tasks_of_row.items():
            if figures["against_baseline"]:
                tests.setdefault(name, []).append(figures["against_baseline"])
    for tested in tests.values():
        corrected = statistics.holm(np.array([difference["p"] for difference in tested]))
        for difference, p in zip(tested, corrected, strict=True):
            difference["p_holm"] = float(p)


def _is_corpus(name: str) -> bool:
    """Whether the metrics of a task belong to a whole language, not to a question."""
    return name in tasks.names() and tasks.find(name).corpus_metrics is not None
