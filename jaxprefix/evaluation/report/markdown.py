"""report.md: the tables, with notes on how to read them."""

from collections.abc import Mapping

from jaxprefix.evaluation.report.cells import Cells, group_cells, language_cells
from jaxprefix.evaluation.report.intervals import Statistics, resampling
from jaxprefix.evaluation.report.summary import Report
from jaxprefix.io.markdown import escape, table

ABOUT = (
    "Scores are in percent. The mean of the others is unweighted; the gap is the source language's score minus the "
    "mean of the others, in points. predictions.jsonl has every question with its answer and scores."
)
ABOUT_INTERVALS = (
    "Intervals have a confidence of {confidence:.0%}. They are percentiles of {resamples:,} bootstrap resamples of the "
    "questions, or of the passages that several questions share; each is resampled in all its languages at once. An "
    "interval without width means that all answers have the same score, not that the score is certain. A score that is "
    "not a mean over questions has no interval (–). Means by family, script and resource class (0 to 5, Joshi et al. "
    "2020) are over languages other than the source. statistics.json has every figure."
)


def markdown(
    report: Report, notes: Mapping[str, str], baseline: Report | None = None, statistics: Statistics | None = None
) -> str:
    """The text of report.md: the tables of the terminal, and the notes by task."""
    text = [f"# {escape(report['model'])}: {escape(report['method'])}", ""]
    text += [f"Trained on: {escape(report['source'])}. {ABOUT}", ""]
    if statistics:
        settings = {"confidence": statistics["confidence"], "resamples": statistics["resamples"]}
        text += [ABOUT_INTERVALS.format(**settings), ""]
    if baseline:
        text += [f"Baseline: {escape(baseline['model'])}, {escape(baseline['method'])}.", ""]
    for name, task in report["tasks"].items():
        stats = statistics["tasks"][name] if statistics else None
        other = baseline["tasks"].get(name) if baseline else None
        text += [f"## {escape(name)}", "", *_table(language_cells(task, other, stats))]
        about = " ".join(filter(None, (stats and resampling(stats), notes.get(name))))
        text += [escape(about), ""] if about else []
        if stats and (groups := group_cells(stats)):
            for section in groups.sections:
                text += _table(Cells(groups.header, [section]))
    return "\n".join(text).rstrip("\n") + "\n"


def tables(titled: Mapping[str, Cells]) -> str:
    """Only the tables, each after its title."""
    text = [line for title, cells in titled.items() for line in (f"## {escape(title)}", "", *_table(cells))]
    return "\n".join(text).rstrip("\n") + "\n"


def _table(cells: Cells) -> list[str]:
    """The lines of a table, and an empty line."""
    text_columns = [column for column, name in enumerate(cells.header) if column == 0 or name == "name"]
    return [
        table(cells.header, [line for section in cells.sections for line in section], cells.closing, text_columns),
        "",
    ]
