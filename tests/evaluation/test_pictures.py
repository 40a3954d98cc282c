"""Pictures: bars are measured in the PNG's own pixels against the report's numbers."""

import numpy as np
import pytest
from matplotlib import colors, image

from jaxprefix.evaluation import pictures
from jaxprefix.evaluation.report import build, summarise


def task(values, source="en"):
    """A summary where each language has one row with the given score."""
    rows = [
        {"language": code, "id": "1", "scores": {"f1": value, "em": 0.0}, "parse_failure": False}
        for code, value in values.items()
    ]
    return summarise(rows, ("f1", "em"), source)


def report(method="prefix", model="tiny", **tasks):
    return build(model, method, "en", {name: task(values) for name, values in tasks.items()})


def where(pixels, colour):
    """[height, width] of bool: the pixels of exactly this colour, without the legend and title above the panels."""
    found = np.all(np.abs(pixels[..., :3] - np.array(colors.to_rgb(colour))) < 1 / 255, axis=-1)
    found[:70] = False
    return found


def drawn(path, *arguments):
    pictures.bars(arguments[0], path, *arguments[1:])
    return image.imread(path)


def runs(line):
    """Lengths of the stretches of True in a line of pixels."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], line.astype(int), [0]])))
    return (edges[1::2] - edges[::2]).tolist()


FIVE = {"de": 0.4, "en": 0.8, "es": 0.6, "ru": 0.2, "zh": 0.1}


def test_standing_bars_are_as_high_as_their_scores_with_the_source_first(tmp_path):
    pixels = drawn(tmp_path / "picture.png", report(xquad=FIVE))
    assert 400 < pixels.shape[0] < 800 and pixels.shape[1] == pictures.WIDTH * pictures.DOTS
    source, others = where(pixels, pictures.SOURCE_COLOUR), where(pixels, pictures.OTHER_COLOUR)
    assert source.any(axis=0).argmax() < others.any(axis=0).argmax()
    # The dashed line may cross a bar: from its top to its foot.
    floor = np.flatnonzero(source.any(axis=1))[-1]
    source_height = floor - source.any(axis=1).argmax()
    columns = others.any(axis=0)
    starts = np.flatnonzero(np.diff(columns.astype(int)) == 1) + 5
    heights = [floor - others[:, column].argmax() for column in starts]
    assert heights == pytest.approx([source_height * share for share in (0.75, 0.5, 0.25, 0.125)], abs=2)
    # The dashed line is the darkest row between the text and the axis.
    line = 130 + (1 - pixels[130 : floor - 5, :, :3].max(axis=-1)).sum(axis=1).argmax()
    assert floor - line == pytest.approx(source_height * 0.325 / 0.8, abs=2)


def test_122_languages_lie_and_each_has_its_bar_and_its_baseline(tmp_path):
    values = {f"l{place:02d}_Latn": 0.9 - 0.005 * place for place in range(121)} | {"en": 0.45}
    halves = {code: value / 2 for code, value in values.items()}
    pixels = drawn(tmp_path / "picture.png", report(belebele=values), report("none", belebele=halves))
    assert 3000 < pixels.shape[0] < 5000
    source, others = where(pixels, pictures.SOURCE_COLOUR), where(pixels, pictures.OTHER_COLOUR)
    baseline = where(pixels, pictures.BASELINE_COLOUR)
    left = np.flatnonzero(source.any(axis=0))[0] + 5
    assert len(runs(others[:, left])) == 121
    assert len(runs(baseline[:, left])) == 122
    assert source.any(axis=1).argmax() < others.any(axis=1).argmax()
    # Thick enough to be seen, and never on each other.
    assert min(runs(others[:, left])) >= 10 and min(runs(baseline[:, left])) >= 5
    end = [np.flatnonzero(found.any(axis=0))[-1] - left + 5 for found in (source, others, baseline)]
    assert end == pytest.approx([end[0], 2 * end[0], end[0]], abs=4)


@pytest.mark.parametrize("baseline", [None, report("none"), report("none", xquad={"fr": 0.5})])
def test_what_has_no_baseline_shows_none(tmp_path, baseline):
    pixels = drawn(tmp_path / "picture.png", report(xquad=FIVE), baseline)
    assert not where(pixels, pictures.BASELINE_COLOUR).any()
    assert where(pixels, pictures.OTHER_COLOUR).any()


def test_a_language_that_the_baseline_lacks_has_no_paler_bar(tmp_path):
    pixels = drawn(tmp_path / "picture.png", report(xquad=FIVE), report("none", xquad={"de": 0.3, "en": 0.3}))
    foot = np.flatnonzero(where(pixels, pictures.SOURCE_COLOUR).any(axis=1))[-1] - 5
    assert len(runs(where(pixels, pictures.BASELINE_COLOUR)[foot])) == 2


@pytest.mark.parametrize("values", [{"en": 0.5}, {"de": 0.5}, {"en": 0.0, "de": 0.0}, {"en": 1.0, "de": 1.0}])
def test_one_language_and_the_ends_of_the_scale(tmp_path, values):
    pixels = drawn(tmp_path / "picture.png", report(xquad=values))
    coloured = where(pixels, pictures.SOURCE_COLOUR) | where(pixels, pictures.OTHER_COLOUR)
    assert coloured.any() == any(values.values())
    # A lone bar is no wall of colour.
    assert max(runs(coloured.any(axis=0)), default=0) < pixels.shape[1] / 4
    assert pixels[..., :3].min() < 0.2


def test_each_task_has_a_panel_and_an_older_picture_is_replaced(tmp_path):
    path = tmp_path / "new" / "picture.png"
    single = drawn(path, report(xquad=FIVE))
    double = drawn(path, report(xquad=FIVE, xnli={**FIVE, "sw": 0.3}))
    assert double.shape[0] > 1.6 * single.shape[0]
    assert [file.name for file in path.parent.iterdir()] == ["picture.png"]
    rows = where(double, pictures.SOURCE_COLOUR).any(axis=1)
    assert len([length for length in runs(rows) if length > 100]) >= 2


def test_names_are_no_mathematics(tmp_path):
    pixels = drawn(
        tmp_path / "picture.png", report("m$_{$", "a$\\broken{$/" + "long/" * 60, **{"x$^$": {"e$^$n": 0.5}})
    )
    assert pixels[..., :3].min() < 0.2
