"""python -m benchmarks.table: prints the newest results as a Markdown table."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.sides import RESULTS
from jaxprefix.io import markdown

COLUMNS = ("work", "method", "device", "ours", "peer", "ratio", "target", "of the limit", "memory, MB, ours : peer")


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    return markdown.table(COLUMNS, map(_cells, rows), words=(0, 1, 2))


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    if row["figure"] is None:
        return row["work"], row["method"], row["device"], "not measured", "", "", row["target"] or "", "", ""
    ours, peer = (_with_spread(row, side, value) for side, value in (("ours", row["figure"]), ("peer", row["peer"])))
    ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
    state = {True: "", False: " (missed)", None: " (not measured)"}[row["met"]]
    target = "" if row["target"] is None else f"{row['target']}{state}"
    memory = " : ".join(f"{megabytes:,}" for megabytes in row.get("memory_mb", []))
    return row["work"], row["method"], row["device"], f"{ours} {row['unit']}", peer, ratio, target, _limit(row), memory


def _limit(row: Mapping[str, Any]) -> str:
    """The share of the machine's rate of matrix products or copies, and whether it reaches its target."""
    kinds = ("mfu", "mfu_target", "products"), ("bandwidth_share", "bandwidth_target", "copies")
    for name, target, kind in kinds:
        if name in row:
            missed = f", missed: {row[target]:.0%}" if row[name] < row[target] else ""
            return f"{row[name]:.0%} of {kind}{missed}"
    return ""


def _with_spread(row: Mapping[str, Any], side: str, value: float | None) -> str:
    if value is None:
        return ""
    spread = row.get("spread", {}).get(side)
    return f"{value:,}" + (f" ({spread[0]:,.4g}–{spread[1]:,.4g})" if spread else "")


if __name__ == "__main__":
    print(table(json.loads((RESULTS / "latest.json").read_text())))
