"""The pictures of an evaluation: languages, resource levels and groups, each as PNG and SVG."""

from pathlib import Path

from jaxprefix.evaluation.plots import canvas
from jaxprefix.evaluation.plots.by_group import by_group
from jaxprefix.evaluation.plots.by_language import by_language
from jaxprefix.evaluation.plots.by_resource import by_resource
from jaxprefix.evaluation.report.intervals import Statistics
from jaxprefix.evaluation.report.summary import Report

KINDS = ("png", "svg")


def draw(report: Report, statistics: Statistics, directory: Path, baseline: Report | None = None) -> list[Path]:
    """Write report, resource and groups, each .png and .svg, replacing older ones; returns the PNGs.

    Without languages that are known there is no resource or groups, and older ones are removed.

    Args:
        report: as `report.build` makes it.
        statistics: as `report.build_statistics` makes them, of the same tasks.
        baseline: another run's report, say the frozen base's, whose bars stand paler beside the run's own.
    """
    figures = {
        "report": by_language(report, baseline, statistics),
        "resource": by_resource(report, statistics),
        "groups": by_group(report, statistics),
    }
    for name, figure in figures.items():
        paths = [directory / f"{name}.{kind}" for kind in KINDS]
        if figure:
            canvas.save(figure, *paths)
        else:
            for path in paths:
                path.unlink(missing_ok=True)
    return [directory / f"{name}.png" for name, figure in figures.items() if figure]
