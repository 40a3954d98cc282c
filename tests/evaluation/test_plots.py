"""Plots: bars are measured in the pixels of the PNG and compared with the report, and no texts overlap."""

import itertools
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import colors, image
from matplotlib.backends.backend_agg import FigureCanvasAgg
from scipy.optimize import isotonic_regression

from jaxprefix.evaluation.plots import canvas, draw
from jaxprefix.evaluation.plots.by_group import by_group
from jaxprefix.evaluation.plots.by_language import by_language
from jaxprefix.evaluation.plots.by_resource import apart, by_resource, lanes
from jaxprefix.evaluation.report import build, build_statistics, measure, summarise
from jaxprefix.tasks.languages import find_language, languages_of


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
    canvas.save(by_language(*arguments), path)
    return image.imread(path)


def runs(line):
    """Lengths of the stretches of True in a line of pixels."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], line.astype(int), [0]])))
    return (edges[1::2] - edges[::2]).tolist()


FIVE = {"de": 0.4, "en": 0.8, "es": 0.6, "ru": 0.2, "zh": 0.1}


def test_vertical_bars_are_as_high_as_their_scores_with_the_source_first(tmp_path):
    pixels = drawn(tmp_path / "picture.png", report(xquad=FIVE))
    assert 400 < pixels.shape[0] < 800 and pixels.shape[1] == canvas.WIDTH * canvas.DOTS
    source, others = where(pixels, canvas.SOURCE_COLOUR), where(pixels, canvas.OTHER_COLOUR)
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


def test_bars_of_122_languages_are_horizontal_and_each_has_its_baseline(tmp_path):
    values = {f"l{place:02d}_Latn": 0.9 - 0.005 * place for place in range(121)} | {"en": 0.45}
    halves = {code: value / 2 for code, value in values.items()}
    pixels = drawn(tmp_path / "picture.png", report(belebele=values), report("none", belebele=halves))
    assert 3000 < pixels.shape[0] < 5000
    source, others = where(pixels, canvas.SOURCE_COLOUR), where(pixels, canvas.OTHER_COLOUR)
    baseline = where(pixels, canvas.BASELINE_COLOUR)
    left = np.flatnonzero(source.any(axis=0))[0] + 5
    assert len(runs(others[:, left])) == 121
    assert len(runs(baseline[:, left])) == 122
    assert source.any(axis=1).argmax() < others.any(axis=1).argmax()
    # Thick enough to be visible, and without overlap.
    assert min(runs(others[:, left])) >= 10 and min(runs(baseline[:, left])) >= 5
    end = [np.flatnonzero(found.any(axis=0))[-1] - left + 5 for found in (source, others, baseline)]
    assert end == pytest.approx([end[0], 2 * end[0], end[0]], abs=4)


@pytest.mark.parametrize("baseline", [None, report("none"), report("none", xquad={"fr": 0.5})])
def test_what_has_no_baseline_shows_none(tmp_path, baseline):
    pixels = drawn(tmp_path / "picture.png", report(xquad=FIVE), baseline)
    assert not where(pixels, canvas.BASELINE_COLOUR).any()
    assert where(pixels, canvas.OTHER_COLOUR).any()


def test_a_language_that_the_baseline_lacks_has_no_paler_bar(tmp_path):
    pixels = drawn(tmp_path / "picture.png", report(xquad=FIVE), report("none", xquad={"de": 0.3, "en": 0.3}))
    foot = np.flatnonzero(where(pixels, canvas.SOURCE_COLOUR).any(axis=1))[-1] - 5
    assert len(runs(where(pixels, canvas.BASELINE_COLOUR)[foot])) == 2


@pytest.mark.parametrize("values", [{"en": 0.5}, {"de": 0.5}, {"en": 0.0, "de": 0.0}, {"en": 1.0, "de": 1.0}])
def test_one_language_and_the_ends_of_the_scale(tmp_path, values):
    pixels = drawn(tmp_path / "picture.png", report(xquad=values))
    coloured = where(pixels, canvas.SOURCE_COLOUR) | where(pixels, canvas.OTHER_COLOUR)
    assert coloured.any() == any(values.values())
    # A single bar does not fill the panel.
    assert max(runs(coloured.any(axis=0)), default=0) < pixels.shape[1] / 4
    assert pixels[..., :3].min() < 0.2


def test_each_task_has_a_panel_and_an_older_picture_is_replaced(tmp_path):
    path = tmp_path / "new" / "picture.png"
    single = drawn(path, report(xquad=FIVE))
    double = drawn(path, report(xquad=FIVE, xnli={**FIVE, "sw": 0.3}))
    assert double.shape[0] > 1.6 * single.shape[0]
    assert [file.name for file in path.parent.iterdir()] == ["picture.png"]
    rows = where(double, canvas.SOURCE_COLOUR).any(axis=1)
    assert len([length for length in runs(rows) if length > 100]) >= 2


def test_names_are_not_read_as_mathematics(tmp_path):
    pixels = drawn(
        tmp_path / "picture.png", report("m$_{$", "a$\\broken{$/" + "long/" * 60, **{"x$^$": {"e$^$n": 0.5}})
    )
    assert pixels[..., :3].min() < 0.2


BELEBELE = [language.flores for language in languages_of("belebele")]
XQUAD = [language.bcp47 for language in languages_of("xquad")]


def evaluated(count=20, method="prefix", **tasks):
    """A report and its statistics of invented rows: task=codes."""
    chance, reports, statistics = np.random.default_rng(0), {}, {}
    for name, codes in tasks.items():
        rows = [
            {"language": code, "id": str(number), "scores": {"accuracy": float(right)}, "parse_failure": False}
            for code, level in zip(codes, np.linspace(0.95, 0.1, len(codes)), strict=True)
            for number, right in enumerate(chance.random(count) < level)
        ]
        reports[name] = summarise(rows, ["accuracy"], "en")
        statistics[name] = measure(rows, reports[name])
    return build("tiny", method, "en", reports), build_statistics(statistics)


def texts(figure):
    """The drawn figure's visible texts, each with its box in pixels."""
    FigureCanvasAgg(figure).draw()
    found = []
    for axes in figure.axes:
        ticks = [
            label
            for axis in (axes.xaxis, axes.yaxis)
            for tick in axis.get_major_ticks()
            for label in (tick.label1, tick.label2)
            if min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())  # others are not drawn
        ]
        own = [*axes.texts, axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label, *ticks]
        found += [(text.get_text(), text.get_window_extent()) for text in own if text.get_text() and text.get_visible()]
    for legend in figure.legends:
        found += [(text.get_text(), text.get_window_extent()) for text in legend.get_texts()]
    return found


def overlaps(found):
    """Pairs of texts that overlap by more than a pixel. The two labels of one tick count as one text."""
    pairs = itertools.combinations(found, 2)
    return [
        (one, other)
        for (one, box), (other, against) in pairs
        if min(box.x1, against.x1) - max(box.x0, against.x0) > 1
        and min(box.y1, against.y1) - max(box.y0, against.y0) > 1
    ]


@pytest.mark.parametrize(
    "tasks", [{"belebele": BELEBELE}, {"xquad": XQUAD, "belebele": [*BELEBELE[:24], "eng_Latn"]}], ids=["122", "few"]
)
def test_no_texts_overlap_and_all_are_within_the_picture(tasks):
    report, statistics = evaluated(**tasks)
    assert not set(tasks) - set(report["tasks"]) and len(BELEBELE) == 122
    for figure in (
        by_language(report, None, statistics),
        by_resource(report, statistics),
        by_group(report, statistics),
    ):
        assert figure
        found = texts(figure)
        assert len(found) > 15 and overlaps(found) == []
        width, height = figure.bbox.size
        assert all(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height for _, box in found)


def segments(axes):
    """The ends of the whiskers in a panel, in its own scale, in drawing order."""
    return np.array([segment for lines in axes.collections for segment in lines.get_segments()])


def test_whiskers_end_where_the_intervals_do_and_values_follow_them():
    report, statistics = evaluated(xquad=XQUAD)
    figure = by_language(report, None, statistics)
    scores, about = report["tasks"]["xquad"]["languages"], statistics["tasks"]["xquad"]["languages"]
    codes = ["en", *sorted(set(XQUAD) - {"en"}, key=lambda code: (-scores[code]["accuracy"], code))]
    expected = [[100 * about[code]["accuracy"][end] for end in ("low", "high")] for code in codes]
    found = segments(figure.axes[0])
    assert found[..., 1] == pytest.approx(np.array(expected))
    assert found[..., 0] == pytest.approx(np.repeat(np.arange(12.0)[:, None], 2, axis=1))
    assert [text.xy[1] for text in figure.axes[0].texts] == pytest.approx([high for _, high in expected])
    report, statistics = evaluated(belebele=BELEBELE[:20])
    assert segments(by_language(report, None, statistics).axes[0])[:, 0, 1] == pytest.approx(np.arange(20.0))


def test_groups_are_the_means_and_counts_of_their_languages():
    report, statistics = evaluated(belebele=BELEBELE)
    figure = by_group(report, statistics)
    assert figure
    scores = report["tasks"]["belebele"]["languages"]
    for axes, key in zip(figure.axes, ("family", "script"), strict=True):
        own = {}
        for code in set(BELEBELE) - {"eng_Latn"}:
            own.setdefault(getattr(find_language(code), key), []).append(100 * scores[code]["accuracy"])
        shown = {
            label.get_text(): bar.get_width() for label, bar in zip(axes.get_yticklabels(), axes.patches, strict=True)
        }
        assert shown == pytest.approx({f"{name} ({len(part)})": np.mean(part) for name, part in own.items()})
        assert list(shown.values()) == sorted(shown.values(), reverse=True)


def test_resource_levels_show_each_language_and_the_classes_means():
    report, statistics = evaluated(xquad=XQUAD)
    figure = by_resource(report, statistics)
    assert figure
    (axes,) = figure.axes
    scores = {code: 100 * found["accuracy"] for code, found in report["tasks"]["xquad"]["languages"].items()}
    gaps = {code: scores["en"] - score for code, score in scores.items() if code != "en"}
    dots = np.concatenate([line.get_ydata() for line in axes.lines if line.get_marker() == "o"])
    assert sorted(dots) == pytest.approx(sorted(gaps.values()))
    assert sorted(text.get_text() for text in axes.texts) == sorted(gaps)
    means = [line.get_ydata()[0] for line in axes.lines if line.get_marker() == "D"]
    classes = sorted({find_language(code).resource for code in gaps})
    own = [[gap for code, gap in gaps.items() if find_language(code).resource == level] for level in classes]
    assert means == pytest.approx([np.mean(part) for part in own])
    for place, line in enumerate(each for each in axes.lines if each.get_marker() == "o"):
        assert np.all(np.abs(line.get_xdata() - place) < 0.5)
    ticks = [f"{level} ({len(part)})" for level, part in zip(classes, own, strict=True)]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ticks  # no place for a class without languages
    assert axes.get_ylabel() == "gap to en (accuracy, points)"
    without, statistics = evaluated(xquad=[code for code in XQUAD if code != "en"])
    assert by_resource(without, statistics).axes[0].get_ylabel() == "accuracy (%)"


def test_names_move_apart_as_little_as_they_can():
    chance = np.random.default_rng(2)
    for count in (1, 2, 7, 20):
        heights = np.sort(chance.normal(0, 5, count))
        found = apart(heights, 1.0, -1000.0, 1000.0)
        steps = np.arange(count)
        assert found == pytest.approx(isotonic_regression(heights - steps).x + steps)  # the least squares solution
    crowded = apart(np.zeros(9), 1.0, -2.0, 8.0)
    assert crowded.tolist() == list(range(-2, 7))
    assert np.diff(apart(np.array([7.9, 7.95, 8.0]), 1.0, 0.0, 8.0)).tolist() == pytest.approx([1, 1])
    assert apart(np.array([7.9, 7.95, 8.0]), 1.0, 0.0, 8.0)[-1] == pytest.approx(8.0)
    assert lanes(np.array([0.0, 0.5, 0.9, 1.2, 3.0]), 1.0).tolist() == [0, 1, 2, 0, 0]


def test_equal_figures_make_equal_files_and_an_svg_is_whole(tmp_path):
    for place in ("one", "other"):
        found = draw(*evaluated(xquad=XQUAD), tmp_path / place, report("none", xquad=FIVE))
        assert [path.name for path in found] == ["report.png", "resource.png", "groups.png"]
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted(f"{name}.{kind}" for name in ("report", "resource", "groups") for kind in ("png", "svg"))
    for name in names:
        content = (tmp_path / "one" / name).read_bytes()
        assert content == (tmp_path / "other" / name).read_bytes()
        if name.endswith("svg"):
            assert ElementTree.fromstring(content).tag == "{http://www.w3.org/2000/svg}svg"
            assert b"<dc:date>" not in content


def test_without_known_languages_only_bars_are_drawn_and_older_pictures_are_removed(tmp_path):
    for name in ("resource.png", "resource.svg", "groups.png", "groups.svg"):
        (tmp_path / name).write_bytes(b"of an earlier evaluation")
    found = draw(*evaluated(mine=["en", "x1", "x2"]), tmp_path)
    assert [path.name for path in found] == ["report.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.png", "report.svg"]
