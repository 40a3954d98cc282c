"""statistics.json: every figure of the report with its interval, and means by groups of languages."""

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import Any, TypedDict

import numpy as np

from jaxprefix.evaluation import statistics
from jaxprefix.evaluation.predictions import SHARED
from jaxprefix.evaluation.report.summary import TaskReport, mean, others_of, score, source_language
from jaxprefix.tasks import languages
from jaxprefix.tasks.languages import Language


class Estimate(TypedDict):
    """A score, or a difference of scores, and its confidence interval."""

    value: float
    low: float | None  # low and high are None for metrics that are not means of rows, which are not resampled
    high: float | None


class Group(TypedDict):
    """Languages of one family, script or resource class, without the source language."""

    languages: list[str]  # the task's codes
    scores: dict[str, Estimate]  # by metric: the unweighted mean over languages
    gap: dict[str, Estimate] | None  # the source's score - this mean; None without the source


class Resampled(TypedDict):
    """What the intervals of a task resample."""

    unit: str  # "question", or what several questions share, such as "passage"
    units: int
    questions: int


class TaskStatistics(TypedDict):
    """One task's part of statistics.json."""

    metrics: list[str]
    resampled: Resampled
    languages: dict[str, dict[str, Estimate]]  # code -> metric -> score
    names: dict[str, str]  # of the known codes
    mean_others: dict[str, Estimate] | None
    gap: dict[str, Estimate] | None
    families: dict[str, Group]
    scripts: dict[str, Group]
    resources: dict[str, Group]  # by the class of Joshi et al. 2020, "0" to "5"


class Statistics(TypedDict):
    """The content of statistics.json."""

    confidence: float
    resamples: int
    tasks: dict[str, TaskStatistics]


def build_statistics(tasks: Mapping[str, TaskStatistics]) -> Statistics:
    """The content of statistics.json. `tasks` maps a task's name to the result of `measure`."""
    return Statistics(confidence=statistics.CONFIDENCE, resamples=statistics.RESAMPLES, tasks=dict(tasks))


def measure(
    rows: Iterable[Mapping[str, Any]], task: TaskReport, whole: Collection[str] = (), cluster: str = "question"
) -> TaskStatistics:
    """Intervals of a task's figures, and groups of its languages.

    Args:
        rows: the rows that `task` summarizes, in any order.
        whole: the metrics that are not means of rows (`Task.corpus_metrics`). They get no interval.
        cluster: what several questions share (`Task.cluster`).
    """
    metrics, others, source = task["metrics"], others_of(task), source_language(task)
    rows = list(rows)
    labels = clusters_of(rows)
    units, questions = len(set(labels)), len({row["id"] for row in rows})
    resampled = _resample(rows, labels, [name for name in metrics if name not in whole])

    def estimates(figures: Mapping[str, float], samples: Mapping[str, np.ndarray]) -> dict[str, Estimate]:
        return {name: _estimate(figures[name], samples.get(name)) for name in metrics}

    def resampled_mean(codes: Sequence[str]) -> dict[str, np.ndarray]:
        return {name: np.mean([by_code[code] for code in codes], axis=0) for name, by_code in resampled.items()}

    def gap_to(figures: Mapping[str, float], codes: Sequence[str]) -> dict[str, Estimate] | None:
        if source is None:
            return None
        samples = {name: by_code[source] - resampled_mean(codes)[name] for name, by_code in resampled.items()}
        return estimates({name: task["languages"][source][name] - figures[name] for name in metrics}, samples)

    def groups(key: Callable[[Language], str | None]) -> dict[str, Group]:
        result = {}
        for name, codes in grouped(others, key).items():
            figures = {metric: mean(task["languages"][code][metric] for code in codes) for metric in metrics}
            scores = estimates(figures, resampled_mean(codes))
            result[name] = Group(languages=codes, scores=scores, gap=gap_to(figures, codes))
        return result

    mean_others = task["mean_others"]
    return TaskStatistics(
        metrics=metrics,
        resampled=Resampled(unit=cluster if units < questions else "question", units=units, questions=questions),
        languages={code: estimates(figures, resampled_mean([code])) for code, figures in task["languages"].items()},
        names={code: known.name for code in task["languages"] if (known := languages.find_language(code))},
        mean_others=estimates(mean_others, resampled_mean(others)) if mean_others else None,
        gap=gap_to(mean_others, others) if mean_others else None,
        families=groups(family),
        scripts=groups(script),
        resources=groups(resource),
    )


def clusters_of(rows: Sequence[Mapping[str, Any]]) -> list[Hashable]:
    """A label for each row: questions that share a text have one label, in all their languages."""
    return statistics.clusters(
        [row["language"] for row in rows], [row["id"] for row in rows], [row.get(SHARED) for row in rows]
    )


def resampling(task: TaskStatistics) -> str:
    """A sentence about what is resampled, if it is not each question by itself; else ""."""
    unit, count = task["resampled"]["unit"], task["resampled"]["units"]
    if unit == "question":
        return ""
    questions = task["resampled"]["questions"]
    return f"Intervals resample {count:,} {unit}{'s'[: count > 1]}, which {questions:,} questions share."


def _resample(
    rows: Sequence[Mapping[str, Any]], labels: Sequence[Hashable], metrics: Sequence[str]
) -> dict[str, dict[str, np.ndarray]]:
    """metric -> code -> the language's mean in each resample, [R]. All metrics have the same resamples."""
    if not metrics:
        return {}
    values = np.array([[score(row, name) for name in metrics] for row in rows])
    sample = statistics.sample([row["language"] for row in rows], labels, values)
    means = statistics.resampled_means(sample)
    return {name: dict(zip(sample.languages, means[..., m].T, strict=True)) for m, name in enumerate(metrics)}


def _estimate(value: float, samples: np.ndarray | None) -> Estimate:
    if samples is None:
        return Estimate(value=value, low=None, high=None)
    low, high = statistics.interval(samples)
    return Estimate(value=value, low=float(low), high=float(high))


def family(language: Language) -> str:
    return language.family


def script(language: Language) -> str:
    return language.script


def resource(language: Language) -> str | None:
    """The resource class of Joshi et al. 2020, "0" to "5"."""
    return None if language.resource is None else str(language.resource)


def grouped(codes: Sequence[str], key: Callable[[Language], str | None]) -> dict[str, list[str]]:
    """The codes of known languages by `key`, with the keys sorted."""
    groups: dict[str, list[str]] = defaultdict(list)
    for code in codes:
        if (known := languages.find_language(code)) and (name := key(known)):
            groups[name].append(code)
    return dict(sorted(groups.items()))
