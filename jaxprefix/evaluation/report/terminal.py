"""The tables for the terminal, adapted to its width."""

import textwrap
from collections.abc import Callable, Iterator, Sequence

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from jaxprefix.evaluation.report.cells import Cells, group_cells, language_cells
from jaxprefix.evaluation.report.intervals import Statistics
from jaxprefix.evaluation.report.summary import Report

NAME_WIDTHS = (40, 24, 16, 0)  # of the column of names: whole, truncated, omitted


class Fitted:
    """A table in the first of its forms that fits the terminal. If none fits, the last is split by columns."""

    def __init__(self, title: str, forms: Sequence[Cells]):
        self.title, self.forms = title, forms

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        def fits(table: Table) -> bool:
            return console.measure(table, options=options.update(max_width=10**4)).maximum <= options.max_width

        yield ""
        for cells in self.forms:
            for width in NAME_WIDTHS if cells.header[-1] == "name" else (0,):
                if fits(table := _table(self.title, cells, width)):
                    yield table
                    return
        yield from self._parts(fits)

    def _parts(self, fits: Callable[[Table], bool]) -> Iterator[Table]:
        """Tables with the first column and as many of the others as fit, but at least one."""
        cells = self.forms[-1]
        columns = [index for index, header in enumerate(cells.header) if index and header != "name"]
        title = self.title
        while columns:
            count = 1
            while count < len(columns) and fits(_table(title, _selected(cells, columns[: count + 1]), 0)):
                count += 1
            yield _table(title, _selected(cells, columns[:count]), 0)
            columns, title = columns[count:], f"{self.title} (continued)"


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


def fitted(title: str, *forms: Cells) -> Fitted:
    """A table for any terminal. Later `forms` are for narrower ones, where a column "name" is truncated or omitted."""
    return Fitted(title, forms)


def _selected(cells: Cells, columns: Sequence[int]) -> Cells:
    """The first column and these."""

    def of(line: Sequence[str]) -> list[str]:
        return [line[index] for index in (0, *columns)]

    return Cells(
        of(cells.header), [[of(line) for line in part] for part in cells.sections], list(map(of, cells.closing))
    )


def _table(title: str, cells: Cells, width: int) -> Table:
    """The table with names of at most `width` characters; 0 omits them."""
    # Text, not str, because a bracket in a name is not markup.
    result = Table(title=Text(title), title_justify="left", box=box.HORIZONTALS, show_edge=False, padding=(0, 1, 0, 0))
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
