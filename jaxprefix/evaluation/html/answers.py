"""The questions of a page, the same for all runs, and the runs' answers to them, compressed."""

import base64
import gzip
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxprefix.evaluation.predictions import read_answered
from jaxprefix.evaluation.selection import spread_indices

LONGEST = 10_000  # characters of a text; predictions.jsonl has the rest

Row = Mapping[str, Any]  # of predictions.jsonl


def packed(directories: Mapping[str, Path], count: int) -> str:
    """The result of `sample` as JSON, packed with gzip and in base64. Equal answers give equal texts."""
    content = json.dumps(sample(directories, count), separators=(",", ":")).encode()
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()


def sample(directories: Mapping[str, Path], count: int) -> dict[str, Any]:
    """At most `count` questions for each task and language, and for each directory its answers to them.

    The questions have the lowest hashes of their ids, as those of --limit. So they are the same for all runs, and in
    all languages that have the same ids.
    """
    rows = {name: _lowest(read_answered(directory).values(), count) for name, directory in directories.items()}
    questions = _lowest({row["key"]: row for found in rows.values() for row in found}.values(), count)
    index = {row["key"]: number for number, row in enumerate(questions)}
    return {
        "questions": list(map(_question, questions)),
        "answers": {
            name: [[index[row["key"]], *_answer(row)] for row in found if row["key"] in index]
            for name, found in rows.items()
        },
    }


def _lowest(rows: Iterable[Row], count: int) -> list[Row]:
    """The rows of each task and language whose ids have the lowest hashes, in a fixed order."""
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: (row["task"], row["language"], row["id"], row["key"])):
        groups[row["task"], row["language"]].append(row)
    return [found[index] for found in groups.values() for index in spread_indices([row["id"] for row in found], count)]


def _question(row: Row) -> dict[str, Any]:
    return {
        "task": row["task"],
        "language": row["language"],
        "id": row["id"],
        "prompt": shortened(row["prompt"]),
        "references": _texts(row["references"]),
        "choices": _texts(row["choices"]),
    }


def _answer(row: Row) -> list[Any]:
    """The answer's text, what was read from it if that differs, its main score, and what should be known of it."""
    read, notes = row.get("answer") or "", []
    if row.get("fit") == "none":
        notes.append("the question did not fit")
    elif row.get("fit") == "cut":
        notes.append("the passage was cut")
    if row["parse_failure"]:
        notes.append("no answer could be read")
    text = shortened(row["prediction"])
    return [text, shortened(read) if read != row["prediction"] else "", next(iter(row["scores"].values())), notes]


def _texts(texts: Sequence[Any]) -> list[str]:
    return [shortened(str(text)) for text in texts]


def shortened(text: str) -> str:
    """The start and the end of a text that is too long."""
    if len(text) <= LONGEST:
        return text
    half, left_out = LONGEST // 2, len(text) - LONGEST
    return f"{text[:half]} [… {left_out:,} more characters …] {text[-half:]}"
