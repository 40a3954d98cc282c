"""The result of an evaluation in memory. A notebook shows it as tables, and pandas takes it as a frame."""

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from io import StringIO
from typing import TYPE_CHECKING, Any

from rich.console import Console

from jaxprefix.evaluation.report import Report, Statistics, source_language, table
from jaxprefix.evaluation.report.caveats import all_cautions
from jaxprefix.evaluation.report.cells import Cells, group_cells, language_cells

if TYPE_CHECKING:
    from pandas import DataFrame

WIDTH = 120  # of the tables in text


@dataclass(frozen=True, repr=False)
class EvaluationResult:
    """The scores of an adapted model, by task and language.

    Attributes:
        report: the content of report.json, such as `report["tasks"]["xquad"]["languages"]["de"]["f1"]`.
        statistics: the content of statistics.json: intervals, and means by family, script and resource class.
        baseline: the report of the run that the tables compare with, if there is one.
    """

    report: Report
    statistics: Statistics
    baseline: Report | None = None

    def to_frame(self) -> "DataFrame":
        """A row for each task and language: the scores from 0 to 1, and the interval of the first metric.

        `source` marks the language of the training data.
        """
        from pandas import DataFrame  # it takes half a second to import

        return DataFrame(list(self._rows()))

    def _rows(self) -> Iterator[dict[str, Any]]:
        for name, task in self.report["tasks"].items():
            stats, headline = self.statistics["tasks"][name], task["metrics"][0]
            for code, scores in task["languages"].items():
                estimate = stats["languages"][code][headline]
                interval = {f"{headline}_low": estimate["low"], f"{headline}_high": estimate["high"]}
                labels = {"task": name, "language": code, "name": stats["names"].get(code)}
                yield labels | {"source": code == source_language(task)} | scores | interval

    def __str__(self) -> str:
        text = StringIO()
        console = Console(file=text, width=WIDTH, force_jupyter=False, color_system=None)
        console.print(*table(self.report, self.baseline, self.statistics))
        return text.getvalue() + "".join(f"{line}\n" for line in all_cautions(self.report, self.baseline))

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        """The tables for a notebook."""
        parts = []
        for name, task in self.report["tasks"].items():
            stats, other = self.statistics["tasks"][name], self.baseline["tasks"].get(name) if self.baseline else None
            title = f"{name}: {self.report['model']}, {self.report['method']}"
            parts.append(_html(title, language_cells(task, other, stats)))
            if groups := group_cells(stats):
                parts.append(_html(f"{name}: families, scripts, resource classes", groups))
        return "".join([*parts, *(f"<p>{escape(line)}</p>" for line in all_cautions(self.report, self.baseline))])


def _html(title: str, cells: Cells) -> str:
    """The table of the cells, with the closing lines in bold."""
    plain = [_line("td", line) for section in cells.sections for line in section]
    lines = [_line("th", cells.header), *plain, *(_line("th", line) for line in cells.closing)]
    return f"<table><caption>{escape(title)}</caption>{''.join(lines)}</table>"


def _line(tag: str, cells: list[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"
