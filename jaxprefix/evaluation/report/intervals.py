"""What statistics.json holds: every figure of the report with its interval, and means by groups of languages."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypedDict

import numpy as np

from jaxprefix.evaluation import statistics
from jaxprefix.evaluation.report.summary import TaskReport, mean, others_of, score, source_language
from jaxprefix.tasks import languages
from jaxprefix.tasks.languages import Language


class Estimate(TypedDict):
    """A score, or a difference of scores, and its confidence interval."""

    value: float
    low: float | None  # None, as is `high`, for metrics that are no means of rows: they are not resampled
    high: float | None


class Group(TypedDict):
    """Languages that share a family, a script or a resource level, without the source language."""

    languages: list[str]  # the task's codes
    scores: dict[str, Estimate]  # by metric: the mean over languages, each counting alike
    gap: dict[str, Estimate] | None  # the source language's score - this mean; None where it was not evaluated


class TaskStatistics(TypedDict):
    """One task's part of statistics.json."""

    metrics: list[str]
    languages: dict[str, dict[str, Estimate]]  # code -> metric -> score
    names: dict[str, str]  # of the codes that are known
    mean_others: dict[str, Estimate] | None
    gap: dict[str, Estimate] | None
    families: dict[str, Group]
    scripts: dict[str, Group]
    resources: dict[str, Group]  # by the class of Joshi et al. 2020, "0" to "5"


class Statistics(TypedDict):
    """The whole of statistics.json."""

    confidence: float
    resamples: int
    tasks: dict[str, TaskStatistics]


def build_statistics(tasks: Mapping[str, TaskStatistics]) -> Statistics:
    """The whole file; `tasks` maps a task's name to its `measure`."""
    return Statistics(confidence=statistics.CONFIDENCE, resamples=statistics.RESAMPLES, tasks=dict(tasks))


def measure(rows: Iterable[Mapping[str, Any]], task: TaskReport, whole: Collection[str] = ()) -> TaskStatistics:
    """Intervals of a task's figures, and groups of its languages.

    Args:
        rows: those of which `task` is the summary, in any order.
        whole: the metrics that are no means of rows (`Task.corpus`); they get no interval.
    """
    metrics, others, source = task["metrics"], others_of(task), source_language(task)
    draws = _draws(list(rows), [name for name in metrics if name not in whole])

    def estimates(figures: Mapping[str, float], drawn: Mapping[str, np.ndarray]) -> dict[str, Estimate]:
        return {name: _estimate(figures[name], drawn.get(name)) for name in metrics}

    def mean_draws(codes: Sequence[str]) -> dict[str, np.ndarray]:
        return {name: np.mean([found[code] for code in codes], axis=0) for name, found in draws.items()}

    def gap_to(figures: Mapping[str, float], codes: Sequence[str]) -> dict[str, Estimate] | None:
        if source is None:
            return None
        drawn = {name: found[source] - mean_draws(codes)[name] for name, found in draws.items()}
        return estimates({name: task["languages"][source][name] - figures[name] for name in metrics}, drawn)

    def groups(key: Callable[[Language], str | None]) -> dict[str, Group]:
        found = {}
        for name, codes in grouped(others, key).items():
            figures = {metric: mean(task["languages"][code][metric] for code in codes) for metric in metrics}
            scores = estimates(figures, mean_draws(codes))
            found[name] = Group(languages=codes, scores=scores, gap=gap_to(figures, codes))
        return found

    mean_others = task["mean_others"]
    return TaskStatistics(
        metrics=metrics,
        languages={code: estimates(figures, mean_draws([code])) for code, figures in task["languages"].items()},
        names={code: known.name for code in task["languages"] if (known := languages.find_language(code))},
        mean_others=estimates(mean_others, mean_draws(others)) if mean_others else None,
        gap=gap_to(mean_others, others) if mean_others else None,
        families=groups(family),
        scripts=groups(script),
        resources=groups(resource),
    )


def _draws(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
    """metric -> code -> [R], the language's mean in each resample; the same resamples throughout."""
    if not metrics:
        return {}
    values = np.array([[score(row, name) for name in metrics] for row in rows])
    asked = statistics.sample([row["language"] for row in rows], [row["id"] for row in rows], values)
    means = statistics.resampled_means(asked)
    return {name: dict(zip(asked.languages, means[..., place].T, strict=True)) for place, name in enumerate(metrics)}


def _estimate(value: float, drawn: np.ndarray | None) -> Estimate:
    if drawn is None:
        return Estimate(value=value, low=None, high=None)
    low, high = statistics.interval(drawn)
    return Estimate(value=value, low=float(low), high=float(high))


def family(language: Language) -> str:
    return language.family


def script(language: Language) -> str:
    return language.script


def resource(language: Language) -> str | None:
    """The class of Joshi et al. 2020."""
    return None if language.resource is None else str(language.resource)


def grouped(codes: Sequence[str], key: Callable[[Language], str | None]) -> dict[str, list[str]]:
    """The codes of known languages by what they share, in its order."""
    found: dict[str, list[str]] = defaultdict(list)
    for code in codes:
        if (known := languages.find_language(code)) and (name := key(known)):
            found[name].append(code)
    return dict(sorted(found.items()))
