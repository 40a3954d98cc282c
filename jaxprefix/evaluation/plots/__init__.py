"""The plots of an evaluation, by language, resource class and group, each as PNG and SVG."""

from pathlib import Path

from jaxprefix.evaluation.plots import canvas
from jaxprefix.evaluation.plots.by_group import by_group
from jaxprefix.evaluation.plots.by_language import by_language
from jaxprefix.evaluation.plots.by_resource import by_resource
from jaxprefix.evaluation.report.intervals import Statistics
from jaxprefix.evaluation.report.summary import Report

KINDS = ("png", "svg")


def draw(report: Report, statistics: Statistics, directory: Path, baseline: Report | None = None) -> list[Path]:
    """Writes report, resource and groups, each as .png and .svg, and returns the PNGs.

    Older files are replaced. The plots resource and groups need known languages; without them, older ones are removed.

    Args:
        report: the result of `report.build`.
        statistics: the result of `report.build_statistics` for the same tasks.
        baseline: another run's report, such as the frozen base's. Its scores are paler bars.
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
