"""Two runs on the same questions: the difference by language with its interval, and whether chance could make it."""

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
from jaxprefix.evaluation.report.intervals import Estimate
from jaxprefix.evaluation.report.summary import language_of, score
from jaxprefix.evaluation.report.terminal import fitted
from jaxprefix.evaluation.settings import names
from jaxprefix.io.atomic import check_new_file

Row = Mapping[str, Any]  # of predictions.jsonl
LEVEL = 0.05  # a corrected p below it has a star


@dataclass(frozen=True)
class Compare:
    """Compares two evaluated runs on the questions that both answered."""

    run_a: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN_A")]]
    """The run whose gain is asked."""
    run_b: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN_B")]]
    """The run that it is compared with."""
    task: str | None = None
    """Comma-separated; left out, all that both were evaluated on."""
    metric: str | None = None
    """Comma-separated, such as f1,em; left out, each task's headline."""
    output: Path | None = None
    """Also write the figures to this JSON file."""


class Difference(TypedDict):
    """Of one language, of the mean of the others, or of the gap; scores in 0..1."""

    a: float
    b: float
    difference: float  # a - b
    low: float
    high: float
    p: float  # that signs of the questions' differences are chance, two-sided
    p_holm: float | None  # corrected for the number of languages; None for the mean and the gap
    n: int  # rows that both answered


class Compared(TypedDict):
    """One metric of one task."""

    source: str | None  # the code of the language that both were trained on; None where there is no gap
    languages: dict[str, Difference]
    mean_others: Difference | None
    gap: Difference | None


def compare(settings: Compare) -> dict[str, Any]:
    """Prints a table a task and metric, and writes and returns the figures.

    InputError, in one line, for runs that have no question in common, and for names that they lack.
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
        print(f"not asked alike: A with {hows[0]}; B with {hows[1]}")
    console, found = Console(), {}
    for task in _tasks(settings, answered):
        own = [{key: row for key, row in rows.items() if row["task"] == task} for rows in answered]
        pairs = [(row, own[1][key]) for key, row in own[0].items() if key in own[1]]
        left = [len(rows) - len(pairs) for rows in own]
        if any(left):
            print(f"{task}: left out, as the other run has not answered them: {left[0]:,} rows of A, {left[1]:,} of B")
        if not pairs:
            continue
        if task in tasks.names() and tasks.find(task).corpus_metrics:
            print(f"{task}: the scores of single answers are compared, not those of all answers of a language")
        metrics = {}
        for metric in _metrics(settings, task, pairs):
            metrics[metric] = differences(pairs, metric, sources)
            console.print(fitted(f"{task} {metric}: A {settings.run_a}, B {settings.run_b}", _cells(metrics[metric])))
        found[task] = {"left_out": {"a": left[0], "b": left[1]}, "metrics": metrics}
    if not found:
        raise InputError(
            f"{settings.run_a} and {settings.run_b} have answered no question in common; evaluate both alike"
        )
    print(f"p: signs of differences at random; Holm's over the languages, * below {LEVEL}")
    values = {"runs": [str(directory) for directory in directories], "sources": sources, "tasks": found}
    values |= {"confidence": statistics.CONFIDENCE, "resamples": statistics.RESAMPLES, "flips": statistics.FLIPS}
    if settings.output:
        write_output(settings.output, values)
        print(f"figures: {settings.output}")
    return values


def differences(pairs: Sequence[tuple[Row, Row]], metric: str, sources: Sequence[str]) -> Compared:
    """By language, of the mean of the others and of the gap: A's score minus B's, its interval and its p value.

    Args:
        pairs: rows of one task, each A's and B's of one question.
        metric: a name in their scores.
        sources: the languages that A and B were trained on; where they are two there is no gap, and neither is among
            the others.
    """
    values = np.array([[score(row, metric) for row in pair] for pair in pairs])
    of = statistics.sample([row["language"] for row, _ in pairs], [row["id"] for row, _ in pairs], values)
    codes, rows = of.languages, of.counts.sum(axis=0)
    own = [code for source in sources if (code := language_of(source, codes))]
    others = [code not in own for code in codes]
    # Every figure is a weighted sum of the languages' means, [K, L]: the languages, the others' mean, the gap.
    weights = [*np.eye(len(codes))]
    if any(others):
        weights.append(np.array(others) / sum(others))
    source = own[0] if any(others) and len(own) == len(sources) and len(set(own)) == 1 else None
    if source:
        weights.append(weights[codes.index(source)] - weights[-1])
    weigh = np.array(weights).T
    figures = of.means.T @ weigh
    resampled = statistics.resampled_means(of)
    low, high = statistics.interval((resampled[..., 0] - resampled[..., 1]) @ weigh)
    chance = statistics.sign_flip((of.sums[..., 0] - of.sums[..., 1]) / rows @ weigh)
    corrected = [*map(float, statistics.holm(chance[: len(codes)])), None, None]
    found = [
        Difference(
            a=float(figures[0, place]),
            b=float(figures[1, place]),
            difference=float(figures[0, place] - figures[1, place]),
            low=float(low[place]),
            high=float(high[place]),
            p=float(chance[place]),
            p_holm=corrected[place],
            n=int(rows[weigh[:, place] != 0].sum()),
        )
        for place in range(weigh.shape[1])
    ]
    mean_others, gap, *_ = [*found[len(codes) :], None, None]
    languages = dict(zip(codes, found, strict=False))
    return Compared(source=source, languages=languages, mean_others=mean_others, gap=gap)


def _tasks(settings: Compare, answered: Sequence[Answers]) -> list[str]:
    """The tasks to compare, in A's order."""
    tasks_of = [list(dict.fromkeys(row["task"] for row in rows.values())) for rows in answered]
    common = [name for name in tasks_of[0] if name in tasks_of[1]]
    has = f"{settings.run_a} has {', '.join(tasks_of[0])}; {settings.run_b} has {', '.join(tasks_of[1])}"
    if not common:
        raise InputError(f"the runs have no task in common: {has}; evaluate both on one")
    wanted = names(settings.task) if settings.task else common
    if unknown := [name for name in wanted if name not in common]:
        raise InputError(f"--task {settings.task}: not both runs were evaluated on {unknown[0]!r}: {has}")
    return wanted


def _metrics(settings: Compare, task: str, pairs: Sequence[tuple[Row, Row]]) -> list[str]:
    """The metrics to compare; a task's rows all have the same ones."""
    known = [name for name in pairs[0][0]["scores"] if name in pairs[0][1]["scores"]]
    wanted = names(settings.metric) if settings.metric else known[:1]
    if unknown := [name for name in wanted if name not in known]:
        raise InputError(f"--metric {settings.metric}: {task} has no {unknown[0]!r}; it has {', '.join(known)}")
    return wanted


def _cells(found: Compared) -> Cells:
    columns = ["language", "A %", "B %", "A - B", INTERVAL, "p", "p Holm", "rows"]
    source = found["source"]
    codes = sorted(found["languages"], key=lambda code: (code != source, code))
    lines = [_line(f"{code} (source)" if code == source else code, found["languages"][code]) for code in codes]
    closing = [("mean of others", found["mean_others"]), ("gap", found["gap"])]
    return Cells(columns, [lines], [_line(title, each, title == "gap") for title, each in closing if each])


def _line(title: str, found: Difference, gap: bool = False) -> list[str]:
    form = points if gap else percent
    interval = span(Estimate(value=found["difference"], low=found["low"], high=found["high"]), signed=True)
    corrected, star = found["p_holm"], ""
    if corrected is not None:
        star = "*" if corrected < LEVEL else " "
    texts = [title, form(found["a"]), form(found["b"]), points(found["difference"]), interval, f"{found['p']:.4f}"]
    return [*texts, "" if corrected is None else f"{corrected:.4f}{star}", f"{found['n']:,}"]
