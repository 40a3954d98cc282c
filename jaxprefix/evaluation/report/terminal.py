"""The tables for the terminal, adapted to its width."""

import textwrap
from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from jaxprefix.evaluation.report.cells import Cells, group_cells, language_cells
from jaxprefix.evaluation.report.intervals import Statistics
from jaxprefix.evaluation.report.summary import Report

NAME_WIDTHS = (40, 12, 0)  # of the column of names: whole, truncated, omitted


class Fitted:
    """The first of several tables that fits the terminal, or the last."""

    def __init__(self, tables: Sequence[Table]):
        self.tables = tables

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wide = options.update(max_width=10**4)
        fitting = (table for table in self.tables if console.measure(table, options=wide).maximum <= options.max_width)
        yield next(fitting, self.tables[-1])


def table(report: Report, baseline: Report | None = None, statistics: Statistics | None = None) -> list[Fitted]:
    """For each task a table of its languages, with the mean of the others and the gap, and a table of groups.

    Args:
        report: the result of `build`.
        baseline: another run's report, whose headline scores are shown as well.
        statistics: intervals, language names and groups of the same tasks.
    """
    tables = []
    for name, task in report["tasks"].items():
        other = baseline["tasks"].get(name) if baseline else None
        stats = statistics["tasks"][name] if statistics else None
        tables.append(fitted(f"{name}: {report['model']}, {report['method']}", language_cells(task, other, stats)))
        if stats and (groups := group_cells(stats)):
            tables.append(fitted(f"{name}: families, scripts, resource classes", groups))
    return tables


def fitted(title: str, cells: Cells) -> Fitted:
    """A table of the cells. A narrow terminal has less padding, and a truncated or no last column "name"."""
    widths = NAME_WIDTHS if cells.header[-1] == "name" else (0,)
    return Fitted([_table(title, cells, width, tight) for width in widths for tight in (False, True)])


def _table(title: str, cells: Cells, width: int, tight: bool) -> Table:
    """The table with names of at most `width` characters; 0 omits them."""
    # Text, not str, because a bracket in a name is not markup.
    result = Table(title=Text(title), collapse_padding=tight)
    for column, header in enumerate(cells.header):
        if header != "name":
            lines = _lines(header.replace("_norm", " norm"), 8)
            result.add_column(Text(lines), justify="right" if column else "left", no_wrap=True, min_width=5)
        elif width:
            result.add_column(Text(header), no_wrap=True, overflow="ellipsis", max_width=width)
    for number, section in enumerate((*cells.sections, cells.closing)):
        for line in section:
            texts = [_lines(line[0], 14), *line[1 : len(result.columns)]]
            result.add_row(*map(Text, texts), style="bold" if number == len(cells.sections) else None)
        result.add_section()
    return result


def _lines(text: str, width: int) -> str:
    """The text, wrapped between words only."""
    return "\n".join(textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False))
