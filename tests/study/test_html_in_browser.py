"""report.html in headless Chromium: what it shows, by keyboard, on wide and narrow screens, with hostile answers."""

import json
import random
from collections.abc import Iterator
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import Any

import chromium
import fabricated
import pytest
from chromium import Browser

from jaxprefix.study.html import Report, report
from jaxprefix.study.plan import Cell
from jaxprefix.tasks.task import Example

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not chromium.PROGRAM, reason="no Chromium: install Debian's package chromium"),
]

MARKUP = (
    '</script><script>document.title = "owned"</script><img src="http://localhost:9/x" onerror="alert(1)"><b>bold</b>'
)
BIDI = "\u202egnihtyreve \u2066\u2067 and no end"
LONG = "W" * 100_000
MOST_BYTES = 10_000_000
LEAST_CONTRAST = 4.5
# The ratio of WCAG 2 between the colour of every text and the first colour behind it that is not transparent.
CONTRASTS = """(() => {
  const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const colour = parse(getComputedStyle(node).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || node.closest("svg, script, style") || !node.getClientRects().length) continue;
    const [a, b] = [light(parse(getComputedStyle(node).color)), light(behind(node))];
    found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), node.tagName, node.textContent.slice(0, 40)]);
  }
  return found.sort((x, y) => x[0] - y[0]);
})()"""


def wordy(cell: Cell, example: Example, right: bool) -> str:
    """Long answers that pack badly."""
    chance = random.Random(f"{cell.name} {example.language} {example.id}")
    words = "".join(map(chr, (chance.randrange(97, 123) if chance.random() < 0.8 else 32 for _ in range(300))))
    return example.response if right else words


def hostile(cell: Cell, example: Example, right: bool) -> str:
    return {"none": MARKUP, "prefix": BIDI, "lora": LONG}[cell.config.method]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium.browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a study of 69 cells in 20 languages, with its page of 10 questions each."""
    _, folder = fabricated.study(tmp_path_factory.mktemp("study") / "large", fabricated.LARGE, 12, wordy)
    report(Report(folder.root, answers=10))
    return folder.root


@pytest.fixture
def opened(large: Path, browser: Browser) -> Browser:
    browser.resize(1280, 900)
    browser.prefer("light")
    browser.complaints.clear()
    browser.open(large / "report.html")
    return browser


def tables(large: Path) -> dict[str, Any]:
    return json.loads((large / "study.json").read_text(encoding="utf-8"))["tables"]


def shown(browser: Browser) -> list[list[str]]:
    """The texts of the table of scores."""
    return browser.run(
        "[...scores.rows].map((row) => [...row.cells].map((cell) => cell.textContent.replace(/ [▲▼†]$/, '')))"
    )


def choose(browser: Browser, name: str, value: str, event: str = "change") -> None:
    """Sets a control, as a user does, and waits for the list of questions."""
    browser.run(f"(() => {{ {name}.value = {json.dumps(value)}; {name}.dispatchEvent(new Event('{event}')); }})()")
    browser.run("new Promise((done) => setTimeout(done, 50))")


def rounded(value: float | None, digits: str = "0.1", sign: str = "") -> str:
    """As Python's format, by decimal arithmetic on the exact value."""
    return "–" if value is None else f"{Decimal(value).quantize(Decimal(digits), ROUND_HALF_EVEN):{sign}f}"


def percent(estimate: dict[str, Any] | None, key: str = "value", sign: str = "") -> str:
    return rounded(None if estimate is None else 100 * estimate[key], sign=sign)


def test_it_is_small_and_opens_quickly(large: Path, opened: Browser, capsys: pytest.CaptureFixture):
    path = large / "report.html"
    assert path.stat().st_size <= MOST_BYTES
    opened.call("Performance.enable", timeDomain="threadTicks")
    wall = opened.open(path)
    metrics = {metric["name"]: metric["value"] for metric in opened.call("Performance.getMetrics")["metrics"]}
    with capsys.disabled():
        print(f"\n{path.stat().st_size / 1e6:.1f} MB; opened in {wall:.2f} s, {metrics['TaskDuration']:.2f} s of CPU")
    assert opened.run("document.querySelectorAll('.figure svg.main-svg').length") > 0
    assert opened.complaints == []


@pytest.mark.parametrize("name", ["Methods", "Ranks", "Sources"])
def test_every_number_is_that_of_study_json(large: Path, opened: Browser, name: str):
    choose(opened, "table", str(list(tables(large)).index(name)))
    header, *lines = shown(opened)
    for row, line in zip(tables(large)[name]["rows"], lines, strict=True):
        cells, figures = dict(zip(header, line, strict=True)), row["tasks"]["babel-qa"]
        others, difference = figures["means"]["others"], figures["against_baseline"]
        expected = {code: percent(estimate) for code, estimate in figures["languages"].items()}
        expected |= {"source": percent(figures["means"]["source"]), "others": percent(others)}
        expected["interval"] = f"{percent(others, 'low')}..{percent(others, 'high')}"
        expected["gap"] = percent(figures["means"]["gap"], sign="+")
        star = "*" if difference and difference["p_holm"] < 0.05 else ""
        expected["− base"] = percent(difference, "difference", "+") + star if difference else "–"
        expected["p Holm"] = rounded(difference["p_holm"], "0.0001") if difference else "–"
        if any(other["tasks"]["babel-qa"]["sd"] for other in tables(large)[name]["rows"]):
            expected["sd"] = rounded(100 * figures["sd"]["others"]) if figures["sd"] else "–"
        assert {key: cells.pop(key) for key in expected} == expected
        assert set(cells) == {"row", "trainable"}
    values = opened.run("[...scores.querySelectorAll('[data-column=de]')].map((cell) => Number(cell.dataset.value))")
    assert values == [row["tasks"]["babel-qa"]["languages"]["de"]["value"] for row in tables(large)[name]["rows"]]
    points = opened.run("heat.data[0].z")
    exact = [
        [100 * row["tasks"]["babel-qa"]["languages"][c]["value"] for c in header[-20:]]
        for row in tables(large)[name]["rows"]
    ]
    assert points == exact


def test_groups_have_the_means_of_study_json(large: Path, opened: Browser):
    for kind in ("script", "family", "resource"):
        choose(opened, "columns", kind)
        header, *lines = shown(opened)
        for row, line in zip(tables(large)["Methods"]["rows"], lines, strict=True):
            means = row["tasks"]["babel-qa"]["means"]
            expected = {
                key.removeprefix(f"{kind} "): percent(means[key]) for key in means if key.startswith(f"{kind} ")
            }
            assert dict(zip(header[9:], line[9:], strict=True)) == expected and len(expected) > 3


def test_it_sorts_and_filters(large: Path, opened: Browser):
    rows = {row["labels"]["method"]: row["tasks"]["babel-qa"] for row in tables(large)["Methods"]["rows"]}
    column = "[...scores.rows[0].cells].find((cell) => cell.textContent.startsWith('de'))"
    by_score = sorted(rows, key=lambda name: -rows[name]["languages"]["de"]["value"])
    opened.run(f"{column}.querySelector('button').click()")
    assert [line[0] for line in shown(opened)[1:]] == by_score
    assert opened.run(f"{column}.getAttribute('aria-sort')") == "descending"
    opened.run(f"{column}.querySelector('button').click()")
    values = [rows[line[0]]["languages"]["de"]["value"] for line in shown(opened)[1:]]
    assert values == sorted(values)
    choose(opened, "rows", "LORA, none", "input")
    assert {line[0] for line in shown(opened)[1:]} == {"lora", "none"}
    choose(opened, "languages", "Cyrl, de", "input")
    assert shown(opened)[0][9:] == ["bg", "de", "ru"]
    assert opened.run("heat.layout.xaxis.ticktext") == ["bg", "de", "ru"]
    assert opened.complaints == []


def test_a_wrong_answer_that_is_right_in_english_is_found(large: Path, opened: Browser):
    """In a row of one seed."""
    row = tables(large)["Sources"]["rows"][9]
    assert row["labels"] == {"method": "lora", "language": "ar"}
    lines = (large / row["cells"][0] / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    scores = {(line["language"], line["id"]): line["scores"]["f1"] for line in map(json.loads, lines)}
    sampled = set(opened.run("answers().then(({questions}) => questions.map(({id}) => id))"))
    assert len(sampled) == 10
    wrong = {key for key in scores if key[1] in sampled and scores[key] < 0.5}
    found = {(code, id) for code, id in wrong if scores["en", id] >= 0.5}
    language = next(code for code, _ in sorted(wrong - found) if code != "en" and code in {code for code, _ in found})
    choose(opened, "table", "2")
    for name, value in {"where": language, "who": "9", "what": "wrong", "opposite": "en"}.items():
        choose(opened, name, value)
    heads = opened.run("[...document.querySelectorAll('#questions summary b')].map((head) => head.textContent)")
    assert set(heads) == {f"{code} {id}" for code, id in found if code == language}
    assert opened.run("count.textContent") == f"{len(heads)} questions"


def test_a_question_is_opened_by_keyboard(opened: Browser):
    for _ in range(20):
        opened.press("Tab")
        if opened.run("document.activeElement.closest('#scores') !== null"):
            break
    opened.press("ArrowDown", "ArrowDown", "End", "ArrowLeft")
    assert opened.run("document.activeElement.parentNode.dataset.column") == "vi"
    assert opened.run("document.getElementById('status').textContent").startswith("prefix, Vietnamese: ")
    opened.press("Enter")
    opened.wait("document.activeElement.id === 'answers-title'")
    assert opened.run("[where.value, who.selectedOptions[0].textContent]") == ["vi", "prefix"]
    while opened.run("document.activeElement.tagName") != "SUMMARY":
        opened.press("Tab")
    opened.press("Enter")
    opened.wait("document.querySelector('#questions details[open] .card')")
    names = opened.run("[...document.querySelectorAll('details[open] .card h4')].map((head) => head.textContent)")
    assert names[0].startswith("prefix, seed 0") and any(name.startswith("none") for name in names)


def test_a_click_into_the_heat_map_shows_the_questions(opened: Browser):
    opened.run("heat.emit('plotly_click', { points: [{ pointIndex: [2, 3] }] })")
    opened.wait("document.activeElement.id === 'answers-title'")
    assert opened.run("[where.value, who.selectedOptions[0].textContent]") == ["bn", "lora"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_have_contrast(opened: Browser, scheme: str):
    opened.prefer(scheme)
    opened.run("document.querySelector('#questions details').open = true")
    opened.wait("document.querySelector('#questions .card')")
    ratios = opened.run(CONTRASTS)
    assert len(ratios) > 200
    assert ratios[0][0] >= LEAST_CONTRAST, ratios[:5]


def test_it_is_usable_on_a_narrow_screen(opened: Browser):
    opened.resize(400, 800)
    opened.open(Path(opened.run("location.pathname")))
    assert opened.run("document.documentElement.scrollWidth") <= 400
    opened.run("document.querySelector('#questions summary').click()")
    opened.wait("document.querySelector('#questions .card')")
    assert opened.run("document.documentElement.scrollWidth") <= 400
    widths = opened.run(
        "[...document.querySelectorAll('select, input')].map((box) => box.getBoundingClientRect().right)"
    )
    assert max(widths) <= 400


def test_right_to_left_scripts_are_written_so(opened: Browser):
    choose(opened, "where", "ar")
    opened.run("document.querySelector('#questions details').open = true")
    opened.wait("document.querySelector('#questions .text')")
    lines = opened.run(
        "[...document.querySelectorAll('#questions .text')[0].children]"
        ".map((line) => [line.lang, getComputedStyle(line).direction])"
    )
    assert lines[:3] == [["ar", "ltr"], ["ar", "rtl"], ["ar", "rtl"]]


def test_a_hostile_answer_is_shown_as_text(browser: Browser, tmp_path: Path):
    text = fabricated.SMALL.replace(', "lora"], seed = [0, 1]', ', "lora"]').partition('[[table]]\nname = "Ranks"')[0]
    _, folder = fabricated.study(tmp_path / "study", text, 2, hostile)
    browser.complaints.clear()
    browser.resize(1280, 900)
    browser.open(report(Report(folder.root)))
    browser.run("document.querySelectorAll('#questions details').forEach((found) => { found.open = true; })")
    browser.wait("document.querySelectorAll('#questions .card').length === 24")
    texts = browser.run("[...document.querySelectorAll('.card .text')].slice(0, 3).map((found) => found.textContent)")
    assert texts[:2] == [MARKUP, BIDI]
    assert texts[2].startswith("W" * 5000 + " [… 90,000 more characters …] W")
    assert browser.run("document.querySelectorAll('.card img, .card script, .card b').length") == 0
    assert browser.run("[document.title, document.documentElement.scrollWidth <= 1280]") == ["invented", True]
    notes = browser.run("[...notes.children].map((note) => note.textContent)")
    assert notes[0] == "A note </script> with <b>markup</b>."
    # The direction of an answer stops at its end.
    directions = browser.run(
        "[...document.querySelectorAll('.card h4')].map((head) => getComputedStyle(head).direction)"
    )
    assert set(directions) == {"ltr"}
    assert browser.complaints == []
