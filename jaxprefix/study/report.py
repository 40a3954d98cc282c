"""Writes the tables and pictures of a study, and prints the tables."""

from rich.console import Console

from jaxprefix.evaluation.report.terminal import fitted
from jaxprefix.io.atomic import disk_errors
from jaxprefix.io.hub import model_directory
from jaxprefix.models.config import DecoderConfig
from jaxprefix.runs.base_model import EMBEDDED, read_config
from jaxprefix.runs.config import model_label
from jaxprefix.study import files, pictures, tables
from jaxprefix.study.folder import Folder
from jaxprefix.study.plan import Plan
from jaxprefix.study.published import parameters
from jaxprefix.study.results import results


def report(plan: Plan, folder: Folder, only: str | None = None) -> int:
    """Writes study.json, study.md, study.csv, study.tex and the pictures, and prints the tables of `only`, or all.

    Returns:
        the number of cells that failed
    """
    found = results(plan, folder)
    titled = tables.titled(plan, found)
    for table in plan.specification.tables:
        if table.kind == "parameters":
            titled[table.name] = {"trainable parameters": parameters(plan, table, sizes(plan))}
    with folder.alone(), disk_errors(folder.root):
        drawn = pictures.draw(plan, found, folder.root)
        files.write(plan, folder, found, titled, drawn)
    console = Console()
    for table in plan.tables(only):
        for title, cells in titled[table.name].items():
            console.print(fitted(f"{table.name}, {title}", cells))
        for note in files.notes(table, found):
            print(f"{table.name}: {note}")
    failed = sum(bool(folder.failure(cell)) for cell in plan.cells(only))
    if failed:
        print(f"{failed} of {len(plan.cells(only))} cells failed; --retry runs them again")
    print(f"tables: {folder.root / 'study.md'} (and .json, .csv, .tex)")
    return failed


def sizes(plan: Plan) -> dict[str, DecoderConfig]:
    """The configuration of each model, by its name, from config.json alone."""
    cells = [next(row.cells) for rows in plan.rows.values() for row in rows]
    models = {model_label(cell.config.model): cell.config.model for cell in cells}
    return {
        label: read_config(EMBEDDED if model is None else model_directory(model, ("config.json",)))
        for label, model in models.items()
    }
