"""report.json, statistics.json, report.md and the terminal's tables, from prediction rows."""

from jaxprefix.evaluation.report.files import read_report, write
from jaxprefix.evaluation.report.intervals import Statistics, TaskStatistics, build_statistics, measure, resampling
from jaxprefix.evaluation.report.markdown import markdown
from jaxprefix.evaluation.report.summary import Report, TaskReport, baseline_scores, build, source_language, summarise
from jaxprefix.evaluation.report.terminal import table

__all__ = [
    "Report",
    "Statistics",
    "TaskReport",
    "TaskStatistics",
    "baseline_scores",
    "build",
    "build_statistics",
    "markdown",
    "measure",
    "read_report",
    "resampling",
    "source_language",
    "summarise",
    "table",
    "write",
]
