"""Training language × language: what training in one language gives to another."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxprefix.evaluation.report.cells import Cells, points
from jaxprefix.study.rows import axes_of, labels_of
from jaxprefix.tasks.languages import same_language


def matrices(task: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Cells]:
    """For each setting of the other axes: training language × language, in points against the baseline or percent."""
    return {
        title: Cells(
            ["trained in", *columns, "toward", "from"],
            [[[source, *map(points, line), *map(points, ends)] for source, line, ends in lines]],
        )
        for title, (columns, lines) in source_by_target(task, rows).items()
    }


def source_by_target(
    task: str, rows: Sequence[Mapping[str, Any]]
) -> dict[str, tuple[list[str], list[tuple[str, list[float | None], tuple[float | None, float | None]]]]]:
    """title -> (languages, [(training language, the gain in each language, (as target, as source))]).

    A gain is in points against the baseline with the same training language. "As target" is the mean gain in a language
    from all others, "as source" the mean gain of all others from it: their difference is the asymmetry.
    """
    trained = [row for row in rows if not row["is_baseline"]]
    bases = [row for row in rows if row["is_baseline"]]
    result = {}
    otheraxes_of = [name for name in axes_of(trained) if name != "language"]
    for key in dict.fromkeys(tuple(labels_of(row, otheraxes_of)) for row in trained):
        members = [row for row in trained if tuple(labels_of(row, otheraxes_of)) == key]
        codes = sorted({code for row in members for code in row["tasks"][task]["languages"]})
        gains: dict[str, list[float | None]] = {}
        for row in members:
            language = row["labels"].get("language") or "en"
            base = next(
                (base for base in bases if base["labels"].get("language") == row["labels"].get("language")), None
            )
            base = base or next(iter(bases), None)
            scores_of = row["tasks"][task]["languages"]
            base_of = base["tasks"][task]["languages"] if base and task in base["tasks"] else {}
            gains[language] = [
                scores_of[code]["value"] - base_of.get(code, {"value": 0.0})["value"] if code in scores_of else None
                for code in codes
            ]
        lines = [(source, line, _toward_and_from(source, codes, gains)) for source, line in gains.items()]
        what = "points against the baseline" if bases else "score"
        result[", ".join([*key, what])] = (codes, lines)
    return result


def _toward_and_from(
    language: str, codes: Sequence[str], gains: Mapping[str, Sequence[float | None]]
) -> tuple[float | None, float | None]:
    column = next((index for index, code in enumerate(codes) if same_language(code, language)), None)
    toward = [] if column is None else [line[column] for source, line in gains.items() if source != language]
    away = [value for index, value in enumerate(gains[language]) if index != column]
    return _mean(toward), _mean(away)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
