"""The page: its template, style and scripts, Plotly, the figures as JSON, and the answers, compressed.

The scripts write every text with textContent, and the page forbids itself all loading, so an answer of a model cannot
become a part of the page.
"""

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any, TypedDict

from plotly.offline import get_plotlyjs

from jaxprefix.evaluation.figures import Figures
from jaxprefix.evaluation.html.answers import packed
from jaxprefix.io.atomic import write_atomically
from jaxprefix.runs import metrics_file
from jaxprefix.tasks.languages import find_language

ANSWERS = 10  # the default of --answers
MOST_STEPS = 150  # of a learning curve
SCRIPTS = ("table.js", "figures.js", "answers.js", "page.js")
# ISO 15924 codes of the scripts that are written from right to left.
RIGHT_TO_LEFT = ("Adlm", "Arab", "Hebr", "Nkoo", "Rohg", "Syrc", "Thaa")


class Row(TypedDict):
    """A row of a table."""

    name: str
    labels: dict[str, Any]
    cells: list[str]  # one for each seed
    seeds: list[int]
    trainable: int | None
    tasks: dict[str, Figures]
    is_baseline: bool


class Table(TypedDict):
    """The rows that are shown together."""

    name: str
    title: str
    x: str | None  # the label over which lines are drawn
    notes: list[str]
    rows: list[Row]
    matrices: dict[str, list[dict[str, Any]]]  # by task: training language × language


@dataclass(frozen=True)
class Page:
    """What the page shows."""

    title: str
    about: str
    tables: Sequence[Table]
    origins: Sequence[tuple[str, str]] = ()
    """What the figures depend on."""


@dataclass(frozen=True)
class Cell:
    """The directories of an evaluated run."""

    run: Path
    evaluation: Path


def write(path: Path, page: Page, cells: Mapping[str, Cell], answers: int) -> None:
    """Writes the page, and replaces an older one. `answers` is the number of questions for each task and language."""
    values = asdict(page) | {
        "languages": {code: _language(code) for code in _codes(page)},
        "curves": {name: curve for name, cell in cells.items() if (curve := _curve(cell.run))},
    }
    folder = files("jaxprefix.evaluation.html")
    parts = {
        "title": html.escape(page.title),
        "style": (folder / "page.css").read_text(encoding="utf-8"),
        "data": in_script(values),
        "answers": packed({name: cell.evaluation for name, cell in cells.items()}, answers),
        "plotly": get_plotlyjs(),
        "script": "\n".join((folder / name).read_text(encoding="utf-8") for name in SCRIPTS),
    }
    template = Template((folder / "page.html").read_text(encoding="utf-8"))
    write_atomically(path, template.substitute(parts).encode())


def in_script(values: Any) -> str:
    """JSON that is safe in a <script>: it contains no "<", which could end the script or open a comment."""
    return json.dumps(values, separators=(",", ":"), allow_nan=False).replace("<", r"\u003c")


def _codes(page: Page) -> list[str]:
    figures = [part for table in page.tables for row in table["rows"] for part in row["tasks"].values()]
    return sorted({code for part in figures for code in part["languages"]})


def _language(code: str) -> dict[str, Any]:
    """What the page knows of a language; its code alone if it is not in the table of languages."""
    known = find_language(code)
    if known is None:
        return {"name": code, "tag": code, "script": None, "family": None, "resource": None, "right_to_left": False}
    return {
        "name": known.name,
        "tag": known.bcp47,
        "script": known.script,
        "family": known.family,
        "resource": None if known.resource is None else str(known.resource),
        "right_to_left": known.script in RIGHT_TO_LEFT,
    }


def _curve(run: Path) -> dict[str, list[Any]] | None:
    """The losses of a run by step: of training, at most MOST_STEPS evenly spread steps; held-out, all of them."""
    rows = metrics_file.read(run)
    training = [(row["step"], row["loss"]) for row in rows if row.get("loss") is not None]
    held_out = [(row["step"], row["held_out_loss"]) for row in rows if row.get("held_out_loss") is not None]
    stride = -(-len(training) // MOST_STEPS) or 1
    return {"training": training[::-stride][::-1], "held_out": held_out} if rows else None
