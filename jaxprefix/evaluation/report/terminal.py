"""The tables that the terminal shows, as many of their columns as it has room for."""

import textwrap
from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from jaxprefix.evaluation.report.cells import Cells, group_cells, language_cells
from jaxprefix.evaluation.report.intervals import Statistics
from jaxprefix.evaluation.report.summary import Report

WIDTHS_OF_NAMES = (40, 12, 0)  # of the column: whole, their beginnings, none


class Fitted:
    """The first of the tables that is no wider than the terminal, else the last."""

    def __init__(self, tables: Sequence[Table]):
        self.tables = tables

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        room = options.update(max_width=10**4)
        fitting = (each for each in self.tables if console.measure(each, options=room).maximum <= options.max_width)
        yield next(fitting, self.tables[-1])


def table(report: Report, baseline: Report | None = None, statistics: Statistics | None = None) -> list[Fitted]:
    """A table or two a task: its languages, the source first, the others' mean and the gap last; means by group.

    Args:
        report: as `build` makes it.
        baseline: another run's report, whose headline scores stand beside.
        statistics: of the same tasks: intervals, names of languages and groups.
    """
    found = []
    for name, task in report["tasks"].items():
        other = baseline["tasks"].get(name) if baseline else None
        about = statistics["tasks"][name] if statistics else None
        found.append(fitted(f"{name}: {report['model']}, {report['method']}", language_cells(task, other, about)))
        if about and (groups := group_cells(about)):
            found.append(fitted(f"{name}: families, scripts, resource classes", groups))
    return found


def fitted(title: str, cells: Cells) -> Fitted:
    """A table of these cells; where there is no room it is set tighter, and a last column "name" is cut or left out."""
    widths = WIDTHS_OF_NAMES if cells.header[-1] == "name" else (0,)
    return Fitted([_table(title, cells, width, tight) for width in widths for tight in (False, True)])


def _table(title: str, cells: Cells, width: int, tight: bool) -> Table:
    """`width` is that of the names, 0 for none."""
    # Text, not str: a bracket in a name is no markup.
    found = Table(title=Text(title), collapse_padding=tight)
    for place, header in enumerate(cells.header):
        if header != "name":
            lines = _lines(header.replace("_norm", " norm"), 8)
            found.add_column(Text(lines), justify="right" if place else "left", no_wrap=True, min_width=5)
        elif width:
            found.add_column(Text(header), no_wrap=True, overflow="ellipsis", max_width=width)
    for number, section in enumerate((*cells.sections, cells.closing)):
        for line in section:
            texts = [_lines(line[0], 14), *line[1 : len(found.columns)]]
            found.add_row(*map(Text, texts), style="bold" if number == len(cells.sections) else None)
        found.add_section()
    return found


def _lines(text: str, width: int) -> str:
    """Wrapped between words alone."""
    return "\n".join(textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False))
