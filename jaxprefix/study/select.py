"""The learning rate of a row, chosen in the training language alone: no score of another language is read."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from jaxprefix.evaluation.report.summary import mean
from jaxprefix.study.folder import Folder
from jaxprefix.study.plan import Cell, Row


@dataclass(frozen=True)
class Choice:
    """The chosen cells, one for each seed, and what was tried. There are no cells if every learning rate failed."""

    rate: float | None
    cells: tuple[Cell, ...]
    tried: Mapping[float | None, float | None]  # the learning rate -> mean over the seeds; None if a run failed


def choose(row: Row, folder: Folder) -> Choice | None:
    """The best learning rate, the first of equal ones; None while a run of a candidate is not done."""
    if len(row.candidates) == 1:
        (rate,) = row.candidates
        return Choice(rate, row.candidates[rate], {})
    tried: dict[float | None, float | None] = {}
    for rate, cells in row.candidates.items():
        stage = "select" if row.select == "score" else "train"
        if any(folder.failure(cell, stage) for cell in cells):
            tried[rate] = None
        elif any(folder.state(cell, stage) is None for cell in cells):
            return None
        else:
            measure = folder.source_score if row.select == "score" else folder.held_out_loss
            tried[rate] = mean(measure(cell) for cell in cells)
    finite = {rate: value for rate, value in tried.items() if value is not None and math.isfinite(value)}
    if not finite:
        return Choice(None, (), tried)
    sign = -1 if row.select == "score" else 1
    best = min(finite, key=lambda rate: sign * finite[rate])
    return Choice(best, row.candidates[best], tried)
