"""The figures of report.json, from prediction rows: by language, the mean of the others, and the gap."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NotRequired, TypedDict

from jaxprefix.errors import InputError
from jaxprefix.evaluation.predictions import FIT, SHOTS, SHOTS_DROPPED
from jaxprefix.tasks import languages

Rows = Iterable[Mapping[str, Any]]  # rows of predictions.jsonl
Corpus = Callable[[Sequence[str], Sequence[Sequence[str]]], dict[str, float]]  # Task.corpus_metrics


class TaskReport(TypedDict):
    """One task's part of report.json; every score is in 0..1."""

    metrics: list[str]  # the first is the headline
    languages: dict[str, dict[str, float]]  # code -> {metric: score, ..., "n": rows, "parse_failure_rate": share}
    # and, where there are any, "cut": rows whose context was cut to fit, "too_long": rows that did not fit and score 0
    # and, for few-shot answers, "shots_dropped": examples that did not fit
    source: dict[str, Any] | None  # the source's scores, and its code as "language"; None if not evaluated
    mean_others: dict[str, float] | None  # the unweighted mean over languages; None if there are no others
    gap: dict[str, float] | None  # source - mean_others


class Report(TypedDict):
    """The content of report.json."""

    model: str
    method: str
    source: str
    tasks: dict[str, TaskReport]
    how: NotRequired[str]  # the settings that decide the answers; reports of earlier versions lack it


def mean(values: Iterable[float]) -> float:
    """The mean, with an exact sum (fsum), so that the order of the values does not matter."""
    values = [float(value) for value in values]
    return math.fsum(values) / len(values)


def score(row: Mapping[str, Any], metric: str) -> float:
    """A row's value of a metric; InputError if it is missing, NaN or not in 0..1."""
    value = row["scores"].get(metric)
    if value is None or not 0.0 <= value <= 1.0:
        raise InputError(
            f"prediction {row['id']!r} ({row['language']}) has {metric} = {value}, expected 0..1; evaluate again"
        )
    return float(value)


def _language(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str], corpus: Corpus | None) -> dict[str, float]:
    """The scores of one language's rows."""
    corpus_scores: dict[str, float] = {}
    if corpus:
        corpus_scores = corpus([row.get("answer", "") for row in rows], [row["references"] for row in rows])
    scores = {
        name: corpus_scores[name] if name in corpus_scores else mean(score(row, name) for row in rows)
        for name in metrics
    }
    counts = {"n": len(rows), "parse_failure_rate": mean(row["parse_failure"] for row in rows)}
    fits = Counter(row.get(FIT) for row in rows)
    counts |= {name: fits[value] for name, value in (("cut", "cut"), ("too_long", "none")) if fits[value]}
    if any(SHOTS in row for row in rows):
        counts[SHOTS_DROPPED] = sum(row.get(SHOTS_DROPPED, 0) for row in rows)
    return scores | counts


def summarise(rows: Rows, metrics: Sequence[str], source: str, corpus: Corpus | None = None) -> TaskReport:
    """The scores of one task by language.

    Args:
        rows: rows of one task, in any order, with `language`, `scores` and `parse_failure`. metrics: names in `scores`;
        the first is the headline. source: the language of the training data. Any code for it matches: "en" matches
        "eng_Latn". corpus: (answers, references of each) of one language -> the metrics that are not means of rows.
        They are computed
            from `answer` ("" if a row has none) and `references` of the rows.

    Raises:
        InputError: there are no rows, or a score is missing or not in 0..1.
    """
    by_language: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        by_language[row["language"]].append(row)
    if not by_language:
        raise InputError("there are 0 predictions to report, expected at least one; check --languages and --limit")
    scores = {code: _language(by_language[code], metrics, corpus) for code in sorted(by_language)}
    source_code = language_of(source, scores)
    others = [figures for code, figures in scores.items() if code != source_code]
    mean_others = {metric: mean(figures[metric] for figures in others) for metric in metrics} if others else None
    gap = None
    if source_code and mean_others:
        gap = {metric: scores[source_code][metric] - mean_others[metric] for metric in metrics}
    return TaskReport(
        metrics=list(metrics),
        languages=scores,
        source={"language": source_code, **scores[source_code]} if source_code else None,
        mean_others=mean_others,
        gap=gap,
    )


def language_of(source: str, codes: Iterable[str]) -> str | None:
    """The code of the source language among `codes`, preferably `source` itself; None if it is not among them."""
    same = [code for code in codes if languages.same_language(code, source)]
    return source if source in same else min(same, default=None)


def build(model: str, method: str, source: str, tasks: Mapping[str, TaskReport], how: str = "") -> Report:
    """The content of report.json.

    `source` is the training language; `tasks` maps a task's name to its summary; `how` has the settings.
    """
    report = Report(model=model, method=method, source=source, tasks=dict(tasks))
    if how:
        report["how"] = how
    return report


def source_language(task: TaskReport) -> str | None:
    """The task's code of the source language; None if it was not evaluated."""
    return task["source"]["language"] if task["source"] else None


def others_of(task: TaskReport) -> list[str]:
    """The codes of the languages other than the source."""
    return [code for code in task["languages"] if code != source_language(task)]


def baseline_scores(task: TaskReport, baseline: TaskReport | None) -> dict[str, float]:
    """The baseline's headline scores, for the languages of the task that it has."""
    rows = baseline["languages"] if baseline else {}
    headline = task["metrics"][0]
    return {code: rows[code][headline] for code in task["languages"] if headline in rows.get(code, {})}


def baseline_summary(task: TaskReport, baseline: TaskReport | None) -> tuple[float | None, float | None]:
    """The baseline's mean of the others and gap; None if it lacks a language that the figure needs."""
    scores, source = baseline_scores(task, baseline), source_language(task)
    others = others_of(task)
    if not others or any(code not in scores for code in others):
        return None, None
    others_mean = mean(scores[code] for code in others)
    return others_mean, scores[source] - others_mean if source in scores else None
