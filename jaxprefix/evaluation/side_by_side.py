"""Headline scores of several evaluated runs in one table, by language, family, script and resource class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from jaxprefix.errors import InputError
from jaxprefix.evaluation.html.page import ANSWERS
from jaxprefix.evaluation.html.runs import write_runs
from jaxprefix.evaluation.report.caveats import how_they_differ
from jaxprefix.evaluation.report.cells import Cells, percent, points
from jaxprefix.evaluation.report.files import read_report
from jaxprefix.evaluation.report.intervals import family, grouped, resource, script
from jaxprefix.evaluation.report.markdown import tables
from jaxprefix.evaluation.report.summary import TaskReport, mean, others_of, source_language
from jaxprefix.evaluation.report.terminal import fitted
from jaxprefix.io.atomic import check_new_file, write_atomically
from jaxprefix.runs.directory import run_directories


@dataclass(frozen=True)
class Beside:
    """Shows the scores of several evaluated runs in one table, such as the frozen base and several methods."""

    runs: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="RUN,RUN[,RUN...]")]]
    """The run directories, comma-separated, in the order of the columns."""
    output: Path | None = None
    """Also write the tables to this Markdown file."""
    html: Path | None = None
    """Also write tables, pictures, questions and answers to this HTML file, which needs no network."""
    answers: int = ANSWERS
    """Questions for each task and language in the HTML file, with the answers of all runs."""


def beside(settings: Beside) -> dict[str, Cells]:
    """Prints a table for each task that all the runs have, and returns its cells by title.

    InputError, in one line, if a run is not evaluated, or if the runs were evaluated on different rows.
    """
    directories = run_directories(settings.runs)
    if len(directories) < 2:
        raise InputError(f"{settings.runs} is one run; give several, comma-separated: RUN,RUN")
    for path in filter(None, (settings.output, settings.html)):
        check_new_file(path)
    if settings.answers < 0:
        raise InputError(f"--answers is {settings.answers}; expected 0 or more")
    reports = [read_report(directory) for directory in directories]
    methods = [report["method"] for report in reports]
    columns = methods if len(set(methods)) == len(methods) else list(map(str, directories))
    tasks = [task for task in reports[0]["tasks"] if all(task in report["tasks"] for report in reports)]
    results = {}
    for task in tasks:
        task_reports = [report["tasks"][task] for report in reports]
        _check_same_rows(task, directories, task_reports)
        results[f"{task}, {task_reports[0]['metrics'][0]} in percent"] = _cells(columns, task_reports)
    if not results:
        raise InputError(f"{settings.runs} have no task in common; evaluate them on the same tasks")
    for title, cells in results.items():
        Console().print(fitted(title, cells))
    if differ := how_they_differ(dict(zip(columns, reports, strict=True))):
        print(differ)
    if settings.output:
        write_atomically(settings.output, tables(results).encode())
        print(f"tables: {settings.output}")
    if settings.html:
        write_runs(settings.html, directories, _distinct(methods, directories), tasks, settings.answers)
        print(f"page: {settings.html}")
    return results


def _distinct(methods: Sequence[str], directories: Sequence[Path]) -> list[str]:
    """A different name for each run, without the directories above it, which a page should not tell its readers."""
    names = list(methods)
    if len(set(names)) < len(names):
        names = [f"{method} {directory.name}" for method, directory in zip(methods, directories, strict=True)]
    if len(set(names)) < len(names):
        names = [f"{number}: {name}" for number, name in enumerate(names, 1)]
    return names


def _check_same_rows(name: str, directories: Sequence[Path], tasks: Sequence[TaskReport]) -> None:
    """InputError if the tasks have different languages or numbers of rows: their means would not be comparable."""
    counts = [{code: int(scores["n"]) for code, scores in task["languages"].items()} for task in tasks]
    for directory, count in zip(directories, counts, strict=True):
        if count != counts[0]:
            code = min(code for code in count | counts[0] if count.get(code) != counts[0].get(code))
            rows = f"{counts[0].get(code, 0):,} and {count.get(code, 0):,} rows of {code}"
            raise InputError(
                f"{directories[0]} and {directory} have answered {rows} in {name}; evaluate both on the same rows"
            )


def _cells(columns: Sequence[str], tasks: Sequence[TaskReport]) -> Cells:
    """A section of languages, the source first; sections of families, scripts and resource classes; mean and gap."""
    first, metric = tasks[0], tasks[0]["metrics"][0]
    source, others = source_language(first), others_of(first)
    scores = [{code: figures[metric] for code, figures in task["languages"].items()} for task in tasks]

    def line(title: str, codes: Sequence[str]) -> list[str]:
        return [title, *(percent(mean(run[code] for code in codes)) for run in scores)]

    by_source = sorted(first["languages"], key=lambda code: (code != source, code))
    sections = [[line(f"{code} (source)" if code == source else code, [code]) for code in by_source]]
    for title, key in (("{}", family), ("{}", script), ("class {}", resource)):
        groups: Mapping[str, Sequence[str]] = grouped(others, key)
        if len(groups) > 1:
            sections.append([line(title.format(name), codes) for name, codes in groups.items()])
    closing = [line("mean of others", others)] if others else []
    if source and others:
        gaps = [run[source] - mean(run[code] for code in others) for run in scores]
        closing.append(["gap", *map(points, gaps)])
    return Cells(["language", *columns], sections, closing)
