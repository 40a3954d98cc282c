"""report.md: the tables for people, with what a reader of them must know."""

import re
from collections.abc import Iterable, Mapping

from jaxprefix.evaluation.report.cells import Cells, group_cells, language_cells
from jaxprefix.evaluation.report.intervals import Statistics
from jaxprefix.evaluation.report.summary import Report

ABOUT = (
    "Scores are in percent. The mean counts every language alike; the gap is the source language's score minus the "
    "mean of the others, in points."
)
ABOUT_INTERVALS = (
    "Intervals are of {confidence:.0%}, percentiles of {resamples:,} bootstrap resamples of the questions; a question "
    "is drawn in all its languages at once. An interval without width means that all answers scored alike, not that "
    "the score is certain; – stands where a score is no mean of questions. Means by family, script and resource class "
    "(0 to 5, Joshi et al. 2020) are over languages other than the source. statistics.json has every figure."
)


def markdown(
    report: Report, notes: Mapping[str, str], baseline: Report | None = None, statistics: Statistics | None = None
) -> str:
    """The text of report.md: the terminal's tables, each with its task's note where `notes` has one by its name."""
    text = [f"# {_escape(report['model'])}: {_escape(report['method'])}", ""]
    text += [f"Trained on: {_escape(report['source'])}. {ABOUT}", ""]
    if statistics:
        settings = {"confidence": statistics["confidence"], "resamples": statistics["resamples"]}
        text += [ABOUT_INTERVALS.format(**settings), ""]
    if baseline:
        text += [f"Baseline: {_escape(baseline['model'])}, {_escape(baseline['method'])}.", ""]
    for name, task in report["tasks"].items():
        about = statistics["tasks"][name] if statistics else None
        other = baseline["tasks"].get(name) if baseline else None
        text += [f"## {_escape(name)}", "", *_table(language_cells(task, other, about))]
        text += [_escape(notes[name]), ""] if notes.get(name) else []
        if about and (groups := group_cells(about)):
            for section in groups.sections:
                text += _table(Cells(groups.header, [section]))
    return "\n".join(text).rstrip("\n") + "\n"


def tables(titled: Mapping[str, Cells]) -> str:
    """Tables alone, each under its title."""
    text = [line for title, cells in titled.items() for line in (f"## {_escape(title)}", "", *_table(cells))]
    return "\n".join(text).rstrip("\n") + "\n"


def _table(cells: Cells) -> list[str]:
    """The lines of a table, and an empty one."""
    names = cells.header[-1] == "name"
    rules = ["---", *["---:"] * (len(cells.header) - 1 - names), *["---"] * names]
    lines = [_line(map(_escape, cells.header)), _line(rules)]
    lines += [_line(map(_escape, line)) for section in cells.sections for line in section]
    lines += [_line(f"**{_escape(cell)}**" if cell else "" for cell in line) for line in cells.closing]
    return [*lines, ""]


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _escape(text: str) -> str:
    """Text that GitHub's markdown shows as it is, on one line; an underscore inside a word needs no escape."""
    text = re.sub(r"([\\`*\[\]<>|~&$])", r"\\\1", " ".join(text.split()))
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)
