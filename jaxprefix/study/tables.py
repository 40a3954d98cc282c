"""The tables of a study, as cells of text, from study.json's rows."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxprefix.evaluation.report.cells import Cells, percent, points, span
from jaxprefix.study.matrix import matrices
from jaxprefix.study.mechanism import probe_cells
from jaxprefix.study.plan import Plan
from jaxprefix.study.published import known_cells
from jaxprefix.study.rows import MISSING, axes_of, labels_of, rate_of, title_of, value_of
from jaxprefix.study.specification import Table

Results = Mapping[str, Any]  # the content of study.json
LEVEL = 0.05  # smaller corrected p values have a star
FULL = 40  # more languages than this are not shown one by one


def titled(plan: Plan, results: Results) -> dict[str, dict[str, Cells]]:
    """For each table its parts, by title."""
    return {table.name: _parts(plan, table, results) for table in plan.specification.tables}


def _parts(plan: Plan, table: Table, results: Results) -> dict[str, Cells]:
    if table.kind == "parameters":
        return {}
    found = results["tables"][table.name]["rows"]
    parts: dict[str, Cells] = {}
    for task, rows in rows_by_task(plan, table, results).items():
        done = [row for row in rows if task in row["tasks"]]
        if not done:
            continue
        what = f"{task}: {done[0]['tasks'][task]['metric']} in percent"
        parts[what] = scores(table, task, rows, results)
        if table.kind == "groups":
            parts[f"{what}, mean of the other languages by {table.by}"] = groups(table, task, done)
        elif table.kind == "matrix":
            parts |= {f"{task}: {title}": cells for title, cells in matrices(task, done).items()}
        elif len(done[0]["tasks"][task]["languages"]) <= FULL:
            parts[f"{what}, by language"] = by_language(task, done)
    if probed := [row for row in found if row["probes"]]:
        parts["probes: their means over the languages, and correlations with the transfer gap"] = probe_cells(probed)
    if published := known_cells(table, plan.rows[table.name], found):
        parts["published figures beside ours"] = published
    return parts


def rows_by_task(plan: Plan, table: Table, results: Results) -> dict[str, list[Mapping[str, Any]]]:
    """task -> the rows of the table that are evaluated on it."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row, result in zip(plan.rows[table.name], results["tables"][table.name]["rows"], strict=True):
        for task in next(row.cells).tasks:
            found.setdefault(task, []).append(result)
    return found


def scores(table: Table, task: str, rows: Sequence[Mapping[str, Any]], results: Results) -> Cells:
    """A line for each row: its settings, the figures of the task, and the test against the baseline."""
    axes, with_rate = axes_of(rows), any(row["tried"] for row in rows)
    with_sd = any(row["tasks"][task]["sd"] for row in rows if task in row["tasks"])
    compared = table.baseline is not None
    sd = ["sd"] if with_sd else []
    header = [*map(title_of, axes), *(["lr"] if with_rate else []), "trainable"]
    header += ["source", *sd, "others", "interval", *sd, "gap"]
    header += ["- baseline", "p Holm"] if compared else []
    lines = []
    for row in rows:
        line = [*labels_of(row, axes), *([rate_of(row)] if with_rate else []), _trained(row, results)]
        lines.append(line + _scores(row, task, with_sd, compared))
    return Cells(header, [lines])


def _scores(row: Mapping[str, Any], task: str, with_sd: bool, compared: bool) -> list[str]:
    figures = row["tasks"].get(task)
    if figures is None:
        texts = [MISSING] * (4 + 2 * with_sd + 2 * compared)
        return ["failed" if row["failed"] else MISSING, *texts[1:]]
    means, sd = figures["means"], figures["sd"]
    texts = [percent(value_of(means.get("source"))), *([percent(sd.get("source"))] if with_sd else [])]
    texts += [percent(value_of(means.get("others"))), span(means.get("others"))]
    texts += [*([percent(sd.get("others"))] if with_sd else []), points(value_of(means.get("gap")))]
    if compared:
        difference = figures["against_baseline"]
        star = "*" if difference and difference["p_holm"] < LEVEL else ""
        texts += [points(difference["difference"]) if difference else MISSING]
        texts += [f"{difference['p_holm']:.4f}{star}" if difference else MISSING]
    return texts


def by_language(task: str, rows: Sequence[Mapping[str, Any]]) -> Cells:
    """A line for each row, a column for each language, the training language first."""
    axes, codes = axes_of(rows), language_codes(task, rows)
    lines = [
        [*labels_of(row, axes), *(percent(value_of(row["tasks"][task]["languages"].get(code))) for code in codes)]
        for row in rows
    ]
    return Cells([*map(title_of, axes), *codes], [lines])


def language_codes(task: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The languages of a task in these rows, training languages first."""
    sources = [row["tasks"][task]["source"] for row in rows]
    codes = {code for row in rows for code in row["tasks"][task]["languages"]}
    return sorted(codes, key=lambda code: (code not in sources, code))


def groups(table: Table, task: str, rows: Sequence[Mapping[str, Any]]) -> Cells:
    """A line for each row, a column for each script, family or resource class."""
    axes, kinds = axes_of(rows), group_names(table, task, rows)
    lines = [
        [
            *labels_of(row, axes),
            *(percent(value_of(row["tasks"][task]["means"].get(f"{table.by} {kind}"))) for kind in kinds),
        ]
        for row in rows
    ]
    return Cells([*map(title_of, axes), *kinds], [lines])


def group_names(table: Table, task: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    start = f"{table.by} "
    found = {name.removeprefix(start) for row in rows for name in row["tasks"][task]["means"] if name.startswith(start)}
    return sorted(found)


def _trained(row: Mapping[str, Any], results: Results) -> str:
    counts = [results["cells"][cell].get("trainable_parameters") for cell in row["cells"]]
    return f"{counts[0]:,}" if counts and counts[0] is not None else MISSING
