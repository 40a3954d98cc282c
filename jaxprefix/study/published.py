"""Published figures beside ours: "within" our interval, or "outside"."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxprefix.evaluation.report.cells import Cells, percent, span
from jaxprefix.evaluation.report.intervals import Estimate
from jaxprefix.models.config import DecoderConfig
from jaxprefix.runs.base_model import parameter_counts
from jaxprefix.runs.config import model_label
from jaxprefix.study.plan import Plan, Row, matches
from jaxprefix.study.rows import MISSING, text_of, title_of
from jaxprefix.study.specification import Known, Table


def known_cells(table: Table, rows: Sequence[Row], found: Sequence[Mapping[str, Any]]) -> Cells | None:
    """The published figures, ours, and whether they are within our interval; None if the table has none."""
    lines = [_known_line(known, rows, found) for known in table.known]
    header = ["published", "task", "figure", "theirs", "ours", "interval", "", "about"]
    return Cells(header, [lines]) if lines else None


def _known_line(known: Known, rows: Sequence[Row], found: Sequence[Mapping[str, Any]]) -> list[str]:
    what = ", ".join(text_of(value) for value in known.where.values())
    start = [what, known.task, known.figure, f"{known.value:g}"]
    for row, result in zip(rows, found, strict=True):
        figures = result["tasks"].get(known.task)
        if figures and matches(row, known.where):
            estimate = figures["means"].get(known.figure) or figures["languages"].get(known.figure)
            if estimate:
                return [*start, percent(estimate["value"]), span(estimate), verdict(known, estimate), known.about]
    return [*start, MISSING, MISSING, "not run", known.about]


def verdict(known: Known, estimate: Estimate) -> str:
    """Whether the published figure is within our interval."""
    low, high = estimate["low"], estimate["high"]
    if low is None or high is None:
        return ""
    return "within" if 100 * low <= known.value <= 100 * high else "outside"


def parameters(plan: Plan, table: Table, sizes: Mapping[str, DecoderConfig]) -> Cells:
    """The trainable parameters of each row, from config.json alone, by the model's name."""
    rows = plan.rows[table.name]
    axes = list(dict.fromkeys(name for row in rows for name in row.labels))
    lines, verdicts = [], []
    for row in rows:
        config = next(row.cells).config
        trainable, total = parameter_counts(sizes[model_label(config.model)], config.adapter)
        known = next((known for known in table.known if matches(row, known.where)), None)
        lines.append(
            [*(text_of(row.labels.get(name)) for name in axes), f"{trainable:,}", f"{100 * trainable / total:.4f}"]
        )
        verdicts.append(["" if known is None else _millions(known.value, trainable)])
    header = [*map(title_of, axes), "trainable", "% of all", *(["published"] if table.known else [])]
    return Cells(
        header, [[line + (verdict if table.known else []) for line, verdict in zip(lines, verdicts, strict=True)]]
    )


def _millions(published: float, ours: int) -> str:
    digits = len(f"{published / 1e6:g}".partition(".")[2])
    same = f"{ours / 1e6:.{digits}f}" == f"{published / 1e6:.{digits}f}"
    return f"{published / 1e6:g}M: {'equal' if same else 'different'}"
