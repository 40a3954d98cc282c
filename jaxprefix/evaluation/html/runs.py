"""The page of runs side by side."""

from collections.abc import Sequence
from pathlib import Path

from jaxprefix.evaluation.figures import averaged, correct, difference_of, figures_of
from jaxprefix.evaluation.html.page import Cell, Page, Row, Table, write
from jaxprefix.evaluation.report.files import read_report
from jaxprefix.runs.directory import RUN_FILE, read_run


def write_runs(
    path: Path, directories: Sequence[Path], names: Sequence[str], tasks: Sequence[str], answers: int
) -> None:
    """Writes the page of evaluated runs. One run without a method among them is the baseline of the others."""
    rows = [_row(*pair, tasks) for pair in zip(directories, names, strict=True)]
    if len(bases := [index for index, row in enumerate(rows) if row["labels"]["method"] == "none"]) == 1:
        _compare(rows, directories, bases[0], tasks)
    table = Table(name="Runs", title="", x=None, notes=[], rows=rows, matrices={})
    page = Page(title=f"{', '.join(tasks)}: {len(rows)} runs", about="", tables=[table])
    write(path, page, {name: Cell(run, run) for name, run in zip(names, directories, strict=True)}, answers)


def _row(directory: Path, name: str, tasks: Sequence[str]) -> Row:
    report = read_report(directory)
    run = read_run(directory) if (directory / RUN_FILE).is_file() else {}
    return Row(
        name=name,
        labels={"method": report["method"]},
        cells=[name],
        seeds=[run.get("config", {}).get("seed", 0)],
        trainable=run.get("trainable_parameters"),
        tasks={task: figures_of(task, averaged([directory], task), [report]) for task in tasks},
        is_baseline=False,
    )


def _compare(rows: Sequence[Row], directories: Sequence[Path], base: int, tasks: Sequence[str]) -> None:
    rows[base]["is_baseline"] = True
    for task in tasks:
        answered = [averaged([directory], task) for directory in directories]
        for index, row in enumerate(rows):
            if index != base:
                figures = row["tasks"][task]
                figures["against_baseline"] = difference_of(task, figures, answered[index], answered[base])
    correct(row["tasks"] for row in rows)
