"""From prediction rows to the numbers of report.json: per language, the mean of the others, the gap."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypedDict

from jaxprefix.errors import InputError
from jaxprefix.tasks import languages

Rows = Iterable[Mapping[str, Any]]  # as predictions.jsonl has them
Corpus = Callable[[Sequence[str], Sequence[Sequence[str]]], dict[str, float]]  # Task.corpus


class TaskReport(TypedDict):
    """One task's part of report.json; every score is in 0..1."""

    metrics: list[str]  # the first is the headline
    languages: dict[str, dict[str, float]]  # code -> {metric: score, ..., "n": rows, "parse_failure_rate": share}
    source: dict[str, Any] | None  # the source language's row and its code as "language"; None where not evaluated
    mean_others: dict[str, float] | None  # over languages, each counting alike; None where there is no other
    gap: dict[str, float] | None  # source - mean_others


class Report(TypedDict):
    """The whole of report.json."""

    model: str
    method: str
    source: str
    tasks: dict[str, TaskReport]


def mean(values: Iterable[float]) -> float:
    """The mean in float64, its sum free of rounding (fsum), so that the order of rows does not matter."""
    values = [float(value) for value in values]
    return math.fsum(values) / len(values)


def score(row: Mapping[str, Any], metric: str) -> float:
    """One row's value of a metric; InputError where it is absent or not in 0..1 (NaN is not)."""
    value = row["scores"].get(metric)
    if value is None or not 0.0 <= value <= 1.0:
        raise InputError(
            f"prediction {row['id']!r} ({row['language']}) has {metric} = {value}, expected 0..1: evaluate again"
        )
    return float(value)


def _language(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str], corpus: Corpus | None) -> dict[str, float]:
    """The scores of one language's rows."""
    whole: dict[str, float] = {}
    if corpus:
        whole = corpus([row.get("answer", "") for row in rows], [row["references"] for row in rows])
    scores = {name: whole[name] if name in whole else mean(score(row, name) for row in rows) for name in metrics}
    return {**scores, "n": len(rows), "parse_failure_rate": mean(row["parse_failure"] for row in rows)}


def summarise(rows: Rows, metrics: Sequence[str], source: str, corpus: Corpus | None = None) -> TaskReport:
    """One task's scores per language, from rows as predictions.jsonl has them.

    Args:
        rows: of one task, in any order; `language`, `scores` and `parse_failure` are read.
        metrics: names in `scores`; the first is the headline.
        source: the language that was trained on, by any code for it: "en" is "eng_Latn" here.
        corpus: (answers, references of each) of one language -> the metrics that are no means of rows, from the
            rows' `answer` ("" where a row has none) and `references`.

    Raises:
        InputError: no rows, or a score that is absent or outside 0..1.
    """
    by_language: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        by_language[row["language"]].append(row)
    if not by_language:
        raise InputError("there are 0 predictions to report, expected at least one: look at --languages and --limit")
    scores = {code: _language(by_language[code], metrics, corpus) for code in sorted(by_language)}
    own = language_of(source, scores)
    others = [found for code, found in scores.items() if code != own]
    mean_others = {metric: mean(found[metric] for found in others) for metric in metrics} if others else None
    gap = None
    if own and mean_others:
        gap = {metric: scores[own][metric] - mean_others[metric] for metric in metrics}
    return TaskReport(
        metrics=list(metrics),
        languages=scores,
        source={"language": own, **scores[own]} if own else None,
        mean_others=mean_others,
        gap=gap,
    )


def language_of(source: str, codes: Iterable[str]) -> str | None:
    """The one of the codes that means the source language, the very same one before another; None where none does."""
    same = [code for code in codes if languages.same_language(code, source)]
    return source if source in same else min(same, default=None)


def build(model: str, method: str, source: str, tasks: Mapping[str, TaskReport]) -> Report:
    """The whole report; `source` is the training language, `tasks` maps a task's name to its `summarise`."""
    return Report(model=model, method=method, source=source, tasks=dict(tasks))


def source_language(task: TaskReport) -> str | None:
    """The task's code of the source language, None where that was not evaluated."""
    return task["source"]["language"] if task["source"] else None


def others_of(task: TaskReport) -> list[str]:
    """The codes of the languages that were not trained on."""
    return [code for code in task["languages"] if code != source_language(task)]


def baseline_scores(task: TaskReport, baseline: TaskReport | None) -> dict[str, float]:
    """The baseline's headline metric for those of the task's languages that it has."""
    rows = baseline["languages"] if baseline else {}
    headline = task["metrics"][0]
    return {code: rows[code][headline] for code in task["languages"] if headline in rows.get(code, {})}


def baseline_summary(task: TaskReport, baseline: TaskReport | None) -> tuple[float | None, float | None]:
    """The baseline's mean of the others and gap; None unless it has every language that the task's own figure has."""
    scores, source = baseline_scores(task, baseline), source_language(task)
    others = others_of(task)
    if not others or any(code not in scores for code in others):
        return None, None
    found = mean(scores[code] for code in others)
    return found, scores[source] - found if source in scores else None
