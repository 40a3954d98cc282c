"""Compares two runs on the same questions: the differences by language, with intervals and p values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict

import numpy as np
import tyro
from rich.console import Console

from jaxprefix import tasks
from jaxprefix.errors import InputError
from jaxprefix.evaluation import statistics
from jaxprefix.evaluation.predictions import Answers, read_answered
from jaxprefix.evaluation.report.cells import INTERVAL, Cells, percent, points, span
from jaxprefix.evaluation.report.files import read_report, write_output
from jaxprefix.evaluation.report.intervals import Estimate, clusters_of
from jaxprefix.evaluation.report.summary import language_of, score
from jaxprefix.evaluation.report.terminal import fitted
from jaxprefix.evaluation.settings import names
from jaxprefix.io.atomic import check_new_file

Row = Mapping[str, Any]  # a row of predictions.jsonl
LEVEL = 0.05  # significance level: smaller corrected p values have a star


@dataclass(frozen=True)
class Compare:
    """Compares two evaluated runs on the questions that both answered."""

    run_a: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN_A")]]
    """The first run. A positive difference means that it is better."""
    run_b: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN_B")]]
    """The run to compare it with."""
    task: str | None = None
    """Comma-separated tasks; None means all tasks of both runs."""
    metric: str | None = None
    """Comma-separated metrics, such as f1,em; None means the headline metric of each task."""
    output: Path | None = None
    """Also write the figures to this JSON file."""


class Difference(TypedDict):
    """The difference for one language, the mean of the others, or the gap; scores in 0..1."""

    a: float
    b: float
    difference: float  # a - b
    low: float
    high: float
    p: float  # two-sided, of the sign-flip test
    p_holm: float | None  # corrected for the number of languages; None for mean and gap
    n: int  # rows that both runs have answered


class Comparison(TypedDict):
    """The differences in one metric of one task."""

    source: str | None  # the code of the language that both were trained on; None if there is no gap
    languages: dict[str, Difference]
    mean_others: Difference | None
    gap: Difference | None


def compare(settings: Compare) -> dict[str, Any]:
    """Prints a table for each task and metric, and writes and returns the figures.

    InputError, in one line, if the runs have no question in common, or do not have a task or metric.
    """
    directories = (settings.run_a, settings.run_b)
    if settings.run_a.resolve() == settings.run_b.resolve():
        raise InputError(f"{settings.run_a} and {settings.run_b} are the same run; give two")
    if settings.output:
        check_new_file(settings.output)
    sources = [read_report(directory)["source"] for directory in directories]
    answered = [read_answered(directory) for directory in directories]
    hows = [next(iter(rows.values()))["how"] for rows in answered]
    if hows[0] != hows[1]:
        print(f"the runs were evaluated differently: A with {hows[0]}; B with {hows[1]}")
    console, results = Console(), {}
    for task in _tasks(settings, answered):
        rows_a, rows_b = ({key: row for key, row in rows.items() if row["task"] == task} for rows in answered)
        pairs = [(row, rows_b[key]) for key, row in rows_a.items() if key in rows_b]
        left_out = {"a": len(rows_a) - len(pairs), "b": len(rows_b) - len(pairs)}
        if any(left_out.values()):
            counts = f"{left_out['a']:,} rows of A, {left_out['b']:,} of B"
            print(f"{task}: left out because the other run has not answered them: {counts}")
        if not pairs:
            continue
        if task in tasks.names() and tasks.find(task).corpus_metrics:
            print(f"{task}: compares the mean scores of single answers, not the scores of a whole language")
        metrics = {}
        for metric in _metrics(settings, task, pairs):
            metrics[metric] = differences(pairs, metric, sources)
            console.print(fitted(f"{task} {metric}: A {settings.run_a}, B {settings.run_b}", _cells(metrics[metric])))
        results[task] = {"left_out": left_out, "metrics": metrics}
    if not results:
        raise InputError(
            f"{settings.run_a} and {settings.run_b} have no answered question in common; evaluate both on the same rows"
        )
    print(f"p: sign flips of questions or shared passages; Holm: languages, * below {LEVEL}")
    values = {"runs": [str(directory) for directory in directories], "sources": sources, "tasks": results}
    values |= {"confidence": statistics.CONFIDENCE, "resamples": statistics.RESAMPLES, "flips": statistics.FLIPS}
    if settings.output:
        write_output(settings.output, values)
        print(f"figures: {settings.output}")
    return values


def differences(pairs: Sequence[tuple[Row, Row]], metric: str, sources: Sequence[str]) -> Comparison:
    """A's score minus B's, by language, for the mean of the others and for the gap, with intervals and p values.

    Args:
        pairs: rows of one task; each pair has A's and B's row of one question.
        metric: a name in their scores.
        sources: the languages that A and B were trained on. If they differ, there is no gap, and neither is among the
            others.
    """
    values = np.array([[score(row, metric) for row in pair] for pair in pairs])
    sample = statistics.sample([row["language"] for row, _ in pairs], clusters_of([row for row, _ in pairs]), values)
    codes, rows = sample.languages, sample.counts.sum(axis=0)
    source_codes = [code for source in sources if (code := language_of(source, codes))]
    others = [code not in source_codes for code in codes]
    # Every figure is a weighted sum of the languages' means, [K, L]: the languages, the others' mean, the gap.
    weights = [*np.eye(len(codes))]
    if any(others):
        weights.append(np.array(others) / sum(others))
    same_source = len(source_codes) == len(sources) and len(set(source_codes)) == 1
    source = source_codes[0] if any(others) and same_source else None
    if source:
        weights.append(weights[codes.index(source)] - weights[-1])
    weight_matrix = np.array(weights).T
    means = sample.means.T @ weight_matrix
    resampled = statistics.resampled_means(sample)
    low, high = statistics.interval((resampled[..., 0] - resampled[..., 1]) @ weight_matrix)
    p_values = statistics.sign_flip((sample.sums[..., 0] - sample.sums[..., 1]) / rows @ weight_matrix)
    corrected = [*map(float, statistics.holm(p_values[: len(codes)])), None, None]
    figures = [
        Difference(
            a=float(means[0, k]),
            b=float(means[1, k]),
            difference=float(means[0, k] - means[1, k]),
            low=float(low[k]),
            high=float(high[k]),
            p=float(p_values[k]),
            p_holm=corrected[k],
            n=int(rows[weight_matrix[:, k] != 0].sum()),
        )
        for k in range(weight_matrix.shape[1])
    ]
    mean_others, gap, *_ = [*figures[len(codes) :], None, None]
    languages = dict(zip(codes, figures, strict=False))
    return Comparison(source=source, languages=languages, mean_others=mean_others, gap=gap)


def _tasks(settings: Compare, answered: Sequence[Answers]) -> list[str]:
    """The tasks to compare, in A's order."""
    tasks_of = [list(dict.fromkeys(row["task"] for row in rows.values())) for rows in answered]
    common = [name for name in tasks_of[0] if name in tasks_of[1]]
    has = f"{settings.run_a} has {', '.join(tasks_of[0])}; {settings.run_b} has {', '.join(tasks_of[1])}"
    if not common:
        raise InputError(f"the runs have no task in common: {has}; evaluate both on the same task")
    selected = names(settings.task) if settings.task else common
    if unknown := [name for name in selected if name not in common]:
        raise InputError(f"--task {settings.task}: the runs do not both have {unknown[0]!r}: {has}")
    return selected


def _metrics(settings: Compare, task: str, pairs: Sequence[tuple[Row, Row]]) -> list[str]:
    """The metrics to compare. All rows of a task have the same ones."""
    known = [name for name in pairs[0][0]["scores"] if name in pairs[0][1]["scores"]]
    selected = names(settings.metric) if settings.metric else known[:1]
    if unknown := [name for name in selected if name not in known]:
        raise InputError(f"--metric {settings.metric}: {task} has no {unknown[0]!r}; it has {', '.join(known)}")
    return selected


def _cells(comparison: Comparison) -> Cells:
    columns = ["language", "A %", "B %", "A - B", INTERVAL, "p", "p Holm", "rows"]
    source, languages = comparison["source"], comparison["languages"]
    codes = sorted(languages, key=lambda code: (code != source, code))
    lines = [_line(f"{code} (source)" if code == source else code, languages[code]) for code in codes]
    closing = [("mean of others", comparison["mean_others"]), ("gap", comparison["gap"])]
    return Cells(columns, [lines], [_line(title, part, title == "gap") for title, part in closing if part])


def _line(title: str, part: Difference, gap: bool = False) -> list[str]:
    to_text = points if gap else percent
    interval = span(Estimate(value=part["difference"], low=part["low"], high=part["high"]), signed=True)
    corrected, star = part["p_holm"], ""
    if corrected is not None:
        star = "*" if corrected < LEVEL else " "
    texts = [title, to_text(part["a"]), to_text(part["b"]), points(part["difference"]), interval, f"{part['p']:.4f}"]
    return [*texts, "" if corrected is None else f"{corrected:.4f}{star}", f"{part['n']:,}"]
