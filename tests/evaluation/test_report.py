"""Reports: the numbers against exact fractions, report.json against a literal, the tables read back by others."""

import io
import itertools
import json
import random
import statistics
from fractions import Fraction

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from jaxprefix.evaluation.report import baseline_scores, build, markdown, source_language, summarise, table, write


def prediction(language, f1, em, parse_failure=False, id="1"):
    return {
        "task": "xquad",
        "language": language,
        "id": id,
        "prompt": "?\n",
        "prediction": "x",
        "references": ["y"],
        "scores": {"f1": f1, "em": em},
        "parse_failure": parse_failure,
    }


# en: f1 (1 + 0.5) / 2; de: one row; zh: f1 (0.25 + 0 + 0.5 + 0) / 4. The mean of de and zh counts both alike.
ROWS = [
    prediction("zh", 0.25, 0.0, True),
    prediction("en", 1.0, 1.0),
    prediction("zh", 0.0, 0.0),
    prediction("de", 0.5, 0.0),
    prediction("en", 0.5, 0.0, True),
    prediction("zh", 0.5, 0.0),
    prediction("zh", 0.0, 0.0),
]
ENGLISH = {"f1": 0.75, "em": 0.5, "n": 2, "parse_failure_rate": 0.5}
SUMMARY = {
    "metrics": ["f1", "em"],
    "languages": {
        "de": {"f1": 0.5, "em": 0.0, "n": 1, "parse_failure_rate": 0.0},
        "en": ENGLISH,
        "zh": {"f1": 0.1875, "em": 0.0, "n": 4, "parse_failure_rate": 0.25},
    },
    "source": {"language": "en", **ENGLISH},
    "mean_others": {"f1": 0.34375, "em": 0.0},
    "gap": {"f1": 0.40625, "em": 0.5},
}
REPORT = build("tiny/модель", "prefix", "en", {"xquad": summarise(ROWS, ("f1", "em"), "en")})
BASELINE_ROWS = [prediction("en", 0.25, 0.0), prediction("de", 0.125, 0.0), prediction("zh", 0.0625, 0.0)]
BASELINE = build("tiny/модель", "none", "en", {"xquad": summarise(BASELINE_ROWS, ("f1", "em"), "en")})


def test_summary_is_the_literal_of_the_hand_computed_numbers():
    assert summarise(ROWS, ("f1", "em"), "en") == SUMMARY


def test_means_equal_exact_fractions_whatever_the_order_of_rows():
    chance = random.Random(0)
    rows = [
        prediction(code, chance.random(), float(chance.random() < 0.3), chance.random() < 0.2)
        for code in ("en", "de", "sw", "th")
        for _ in range(chance.randrange(50, 300))
    ]
    summary = summarise(rows, ("f1", "em"), "en")

    def exact(language, metric):
        return statistics.mean(Fraction(row["scores"][metric]) for row in rows if row["language"] == language)

    for metric in ("f1", "em"):
        for language, scores in summary["languages"].items():
            assert scores[metric] == pytest.approx(float(exact(language, metric)), abs=1e-15)
        others = statistics.mean(exact(language, metric) for language in ("de", "sw", "th"))
        assert summary["mean_others"] is not None and summary["gap"] is not None
        assert summary["mean_others"][metric] == pytest.approx(float(others), abs=1e-15)
        assert summary["gap"][metric] == pytest.approx(float(exact("en", metric) - others), abs=1e-15)
    assert sum(scores["n"] for scores in summary["languages"].values()) == len(rows)
    chance.shuffle(rows)
    assert summarise(rows, ("f1", "em"), "en") == summary


def test_without_the_source_language_there_is_no_gap_and_the_mean_is_over_all():
    summary = summarise([row for row in ROWS if row["language"] != "en"], ("f1",), "en")
    assert (summary["source"], summary["gap"], source_language(summary)) == (None, None, None)
    assert summary["mean_others"] == {"f1": 0.34375}


def test_of_the_source_language_alone_there_is_no_mean_of_others():
    summary = summarise([row for row in ROWS if row["language"] == "en"], ("f1",), "en")
    assert (summary["mean_others"], summary["gap"], source_language(summary)) == (None, None, "en")
    line = [text.split() for text in shown(build("m", "none", "en", {"xquad": summary})).splitlines()]
    assert ["mean", "of", "others", "–", "0", "–"] in line and ["gap", "–"] in line


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "0 predictions"),
        ([prediction("de", 1.5, 0.0, id="q7")], r"'q7' \(de\) has f1 = 1.5, expected 0..1"),
        ([prediction("de", float("nan"), 0.0)], "f1 = nan"),
        ([{**prediction("de", 0.0, 0.0), "scores": {"em": 1.0}}], "f1 = None"),
    ],
)
def test_predictions_without_usable_scores_are_refused_in_one_line(rows, message):
    with pytest.raises(ValueError, match=message) as refused:
        summarise(rows, ("f1", "em"), "en")
    assert "\n" not in str(refused.value)


def test_report_json_has_exactly_the_form_that_other_programs_read(tmp_path):
    write(REPORT, {}, tmp_path / "new" / "run")
    text = (tmp_path / "new" / "run" / "report.json").read_text(encoding="utf-8")
    expected = {"model": "tiny/модель", "method": "prefix", "source": "en", "tasks": {"xquad": SUMMARY}}
    assert text == json.dumps(expected, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    assert "модель" in text


def test_writing_replaces_whole_files_and_a_refused_report_leaves_the_old_one(tmp_path):
    write(BASELINE, {}, tmp_path)
    write(REPORT, {}, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "report.md"]
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8")) == REPORT
    broken = build("m", "none", "en", {"xquad": {**REPORT["tasks"]["xquad"], "gap": {"f1": float("nan")}}})
    with pytest.raises(ValueError):
        write(broken, {}, tmp_path)
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8")) == REPORT
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "report.md"]


def rendered(text):
    """A GitHub-like parser's reading: the texts of headings and paragraphs, and a list of rows of cells."""
    texts, rows = [], []
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    for before, token in itertools.pairwise(tokens):
        if before.type == "tr_open":
            rows.append([])
        if token.type == "inline":
            plain = "".join(child.content or " " * (child.type == "softbreak") for child in token.children or [])
            (rows[-1] if before.type in ("td_open", "th_open") else texts).append(plain)
    return texts, rows


def test_markdown_is_read_back_as_the_numbers():
    _, rows = rendered(markdown(REPORT, {}, BASELINE))
    assert rows == [
        ["language", "f1 %", "em %", "baseline f1 %", "rows", "unparsed %"],
        ["en (source)", "75.0", "50.0", "25.0", "2", "50.0"],
        ["de", "50.0", "0.0", "12.5", "1", "0.0"],
        ["zh", "18.8", "0.0", "6.2", "4", "25.0"],
        ["mean of others", "34.4", "0.0", "9.4", "5", "12.5"],
        ["gap", "+40.6", "+50.0", "+15.6", "", ""],
    ]


def test_markdown_shows_hostile_names_and_notes_as_they_are():
    hostile = r"a|b *c* _d_ `e` <f> [g](h) \i ~~j~~ &lt; deu_Latn __k"
    rows = [{**row, "language": hostile if row["language"] == "de" else row["language"]} for row in ROWS]
    report = build(hostile, hostile, "en", {hostile: summarise(rows, ("f1",), "en")})
    text = markdown(report, {hostile: hostile + "\n# no heading", "another": "not shown"})
    texts, cells = rendered(text)
    assert texts[0] == f"{hostile}: {hostile}"
    assert texts[2:] == [hostile, hostile + " # no heading"]
    assert cells[2] == [hostile, "50.0", "1", "0.0"]
    assert {len(row) for row in cells} == {4}
    assert r"deu_Latn" in text


def shown(report, baseline=None):
    """The tables as a terminal prints them, without their borders."""
    console = Console(file=io.StringIO(), width=200)
    console.print(*table(report, baseline))
    assert isinstance(console.file, io.StringIO)
    return "".join(" " if "─" <= character <= "╿" else character for character in console.file.getvalue())


def test_the_terminal_shows_the_same_table_and_brackets_in_names():
    text = shown(build("[red]model[/red]", "prefix", "en", dict(REPORT["tasks"])), BASELINE)
    assert "xquad: [red]model[/red], prefix" in text
    bracketed = {"xquad": summarise([prediction("[red]de", 0.5, 0.0)], ("f1",), "en")}
    assert "[red]de" in shown(build("m", "none", "en", bracketed))
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    assert lines[1:] == [
        "language f1 % em % baseline f1 % rows unparsed %",
        "en (source) 75.0 50.0 25.0 2 50.0",
        "de 50.0 0.0 12.5 1 0.0",
        "zh 18.8 0.0 6.2 4 25.0",
        "mean of others 34.4 0.0 9.4 5 12.5",
        "gap +40.6 +50.0 +15.6",
    ]


def test_a_baseline_of_fewer_languages_has_dashes_and_no_mean_to_compare():
    fewer = build("m", "none", "en", {"xquad": summarise(BASELINE_ROWS[:2], ("f1", "em"), "en")})
    _, rows = rendered(markdown(REPORT, {}, fewer))
    assert [row[3] for row in rows[1:]] == ["25.0", "12.5", "–", "–", "–"]
    assert baseline_scores(REPORT["tasks"]["xquad"], fewer["tasks"]["xquad"]) == {"de": 0.125, "en": 0.25}
    _, rows = rendered(markdown(REPORT, {}, build("m", "none", "en", {})))
    assert {len(row) for row in rows} == {5}
