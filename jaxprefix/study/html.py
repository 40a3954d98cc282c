"""report.html of a study, from its study.json and the answers and learning curves of its runs.

It is written only when someone asks for it. The other files of a study depend on its figures alone, so that equal
studies are equal files. The page also depends on the versions of Plotly and zlib, and contains questions of benchmarks,
which not everyone may pass on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import tyro

from jaxprefix.errors import InputError
from jaxprefix.evaluation import html
from jaxprefix.evaluation.html.page import ANSWERS, Cell
from jaxprefix.io.atomic import disk_errors
from jaxprefix.io.messages import shell
from jaxprefix.io.strict_json import read_object
from jaxprefix.study.files import notes, origins
from jaxprefix.study.matrix import source_by_target
from jaxprefix.study.rows import axes_of, labels_of, name_of
from jaxprefix.study.specification import Table

FILE = "report.html"
Results = Mapping[str, Any]  # the content of study.json


@dataclass(frozen=True)
class Report:
    """Writes report.html: tables, pictures, questions and answers of a study, in one file that needs no network."""

    directory: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="DIR")]]
    """The directory of the study. An older report.html in it is replaced."""
    answers: int = ANSWERS
    """Questions for each benchmark and language, with the answers of all runs."""


def report(settings: Report) -> Path:
    """Writes report.html and returns its path. InputError if the directory has no tables of a study."""
    directory = settings.directory
    if settings.answers < 0:
        raise InputError(f"--answers is {settings.answers}; expected 0 or more")
    if not (directory / "study.json").is_file():
        advice = f"run the study to its end: python -m jaxprefix.study SPEC --output {shell(directory)}"
        raise InputError(f"{directory} has no study.json; {advice}")
    results = read_object(directory / "study.json")
    specification = results["specification"]
    page = html.Page(
        title=specification["name"],
        about=specification["about"],
        tables=[_table(part, results) for part in specification["tables"] if part["name"] in results["tables"]],
        origins=list(origins(results)),
    )
    names = {name for table in page.tables for row in table["rows"] if row["tasks"] for name in row["cells"]}
    cells = {name: Cell(directory / name.partition("/")[0], directory / name) for name in sorted(names)}
    path = directory / FILE
    with disk_errors(directory):
        html.write(path, page, cells, settings.answers)
    return path


def _table(part: Mapping[str, Any], results: Results) -> html.Table:
    table = Table(**{field.name: part[field.name] for field in fields(Table) if field.name not in ("known", "grids")})
    rows = results["tables"][table.name]["rows"]
    matrices: dict[str, list[dict[str, Any]]] = {}
    if table.kind == "matrix":
        for task in dict.fromkeys(task for row in rows for task in row["tasks"]):
            matrices[task] = _matrices(task, rows)
    return html.Table(
        name=table.name,
        title=table.title,
        x=table.x,
        notes=list(notes(table, results)),
        rows=[_row(row, table, results) for row in rows],
        matrices=matrices,
    )


def _row(row: Mapping[str, Any], table: Table, results: Results) -> html.Row:
    counts = [results["cells"][cell].get("trainable_parameters") for cell in row["cells"]]
    return html.Row(
        name=name_of(row["labels"]) or table.name,
        labels=row["labels"],
        cells=row["cells"],
        seeds=row["seeds"],
        trainable=counts[0] if counts else None,
        tasks=row["tasks"],
        is_baseline=row["is_baseline"],
    )


def _matrices(task: str, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each setting of the other axes its matrix, with the index of each line's row in the table."""
    done = [row for row in rows if task in row["tasks"]]
    others = [name for name in axes_of([row for row in done if not row["is_baseline"]]) if name != "language"]

    def index(title: str, source: str) -> int:
        return next(
            number
            for number, row in enumerate(rows)
            if row in done
            and not row["is_baseline"]
            and (row["labels"].get("language") or "en") == source
            and title.startswith(", ".join([*labels_of(row, others), ""]))
        )

    return [
        {
            "title": title,
            "languages": codes,
            "lines": [{"source": source, "row": index(title, source), "values": values} for source, values, _ in lines],
        }
        for title, (codes, lines) in source_by_target(task, done).items()
    ]
