"""Reports: the figures against exact fractions, report.json against a literal, and the tables as other programs read
them.
"""

import io
import itertools
import json
import random
import re
import statistics
from fractions import Fraction

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from jaxprefix.errors import InputError
from jaxprefix.evaluation.report import (
    baseline_scores,
    build,
    build_statistics,
    markdown,
    measure,
    read_report,
    source_language,
    summarise,
    table,
    write,
)
from jaxprefix.evaluation.report.caveats import all_cautions, notes
from jaxprefix.evaluation.report.cells import Cells
from jaxprefix.evaluation.report.terminal import fitted
from jaxprefix.tasks.languages import find_language, languages_of


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


def test_with_the_source_language_alone_there_is_no_mean_of_others():
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
    with pytest.raises(InputError, match=message) as refused:
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
    """The text as a GitHub-like parser reads it: headings and paragraphs, and a list of rows of cells."""
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
        "baseline unparsed",  # the words of the header are below each other
        "language f1 % em % f1 % rows %",
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


BELEBELE = [language.flores for language in languages_of("belebele")]


def parallel(codes, count=30, metrics=("accuracy", "accuracy_norm")):
    """Rows of the same questions in every language."""
    chance = random.Random(1)
    return [
        {
            "language": code,
            "id": str(number),
            "scores": {metric: float(chance.random() < 0.3 + 0.5 * (place % 2)) for metric in metrics},
            "parse_failure": number == place,
        }
        for place, code in enumerate(codes)
        for number in range(count)
    ]


def measured(rows, source="en", metrics=("accuracy", "accuracy_norm")):
    summary = summarise(rows, metrics, source)
    report = build("tiny", "prefix", source, {"belebele": summary})
    return report, build_statistics({"belebele": measure(rows, summary)})


def test_the_source_is_found_by_any_code_of_it():
    report, _ = measured(parallel(["deu_Latn", "eng_Latn", "zho_Hans"]))
    assert source_language(report["tasks"]["belebele"]) == "eng_Latn"
    both = parallel(["eng_Latn", "en", "de"])
    assert source_language(summarise(both, ["accuracy"], "en")) == "en"
    assert source_language(summarise(both, ["accuracy"], "eng_Latn")) == "eng_Latn"
    assert source_language(summarise(parallel(["ours", "en"]), ["accuracy"], "ours")) == "ours"


def test_statistics_have_the_figures_of_the_report_and_intervals_of_one_draw():
    """Two questions have three equally likely resamples, apart from their order: every interval is known."""
    scores = {"en": (1.0, 1.0), "de": (0.0, 1.0), "hi": (1.0, 0.0), "zz": (0.0, 0.5)}
    rows = [prediction(code, value, 0.0, id=str(n)) for code, own in scores.items() for n, value in enumerate(own)]
    summary = summarise(rows, ("f1", "em"), "en")
    about = measure(rows, summary)
    assert about["languages"]["de"]["f1"] == {"value": 0.5, "low": 0.0, "high": 1.0}
    assert about["languages"]["en"]["f1"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    # de and hi are never right together. Their mean is certain, which independent resamples would not show.
    assert about["families"] == {
        "Indo-European": {
            "languages": ["de", "hi"],
            "scores": {
                "f1": {"value": 0.5, "low": 0.5, "high": 0.5},
                "em": {"value": 0.0, "low": 0.0, "high": 0.0},
            },
            "gap": {
                "f1": {"value": 0.5, "low": 0.5, "high": 0.5},
                "em": {"value": 0.0, "low": 0.0, "high": 0.0},
            },
        }
    }
    assert {key: group["languages"] for key, group in about["scripts"].items()} == {"Deva": ["hi"], "Latn": ["de"]}
    assert {key: group["languages"] for key, group in about["resources"].items()} == {"4": ["hi"], "5": ["de"]}
    assert about["names"] == {"de": "German", "en": "English", "hi": "Hindi"}
    assert about["mean_others"] is not None and about["gap"] is not None
    assert about["mean_others"]["f1"] == {"value": pytest.approx(1.25 / 3), "low": pytest.approx(1 / 3), "high": 0.5}
    assert about["gap"]["f1"] == {"value": pytest.approx(1 - 1.25 / 3), "low": 0.5, "high": pytest.approx(2 / 3)}


def test_questions_about_one_passage_are_resampled_together_and_the_report_says_so():
    """Two passages; en has other questions about the first than de. All that is right is about the first."""
    texts = {"1": "a", "2": "a", "3": "b", "4": "b"}
    rows = [prediction("de", float(text == "a"), 0.0, id=id) | {"shared": text} for id, text in texts.items()]
    rows += [prediction("en", float(id in "25"), 0.0, id=id) | {"shared": f"en {id in '25'}"} for id in "2345"]
    summary = summarise(rows, ("f1", "em"), "en")
    by_passage = measure(rows, summary, cluster="passage")
    assert by_passage["resampled"] == {"unit": "passage", "units": 2, "questions": 5}
    assert by_passage["languages"]["de"]["f1"] == {"value": 0.5, "low": 0.0, "high": 1.0}
    alone = measure([{key: row[key] for key in row if key != "shared"} for row in rows], summary, cluster="passage")
    assert alone["resampled"] == {"unit": "question", "units": 5, "questions": 5}
    report = build("m", "none", "en", {"xquad": summary})
    for part, said in ((by_passage, True), (alone, False)):
        text = markdown(report, {"xquad": "A note."}, None, build_statistics({"xquad": part}))
        assert ("Intervals resample 2 passages, which 5 questions share. A note.\n" in text) == said


def test_statistics_json_is_whole_and_the_same_for_any_order_of_rows(tmp_path):
    rows = parallel([*BELEBELE[:12], "eng_Latn"])
    report, statistics = measured(rows)
    write(report, {}, tmp_path / "one", None, statistics)
    random.Random(2).shuffle(rows)
    write(*(*measured(rows)[:1], {}, tmp_path / "other", None, measured(rows)[1]))
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["report.json", "report.md", "statistics.json"]
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes()
    found = json.loads((tmp_path / "one" / "statistics.json").read_text(encoding="utf-8"))
    assert found == statistics and (found["confidence"], found["resamples"]) == (0.95, 2000)
    task = found["tasks"]["belebele"]
    for groups in (task["families"], task["scripts"]):
        assert sum(len(group["languages"]) for group in groups.values()) == 12
    for part, figures in ((task["mean_others"], "mean_others"), (task["gap"], "gap")):
        assert {name: each["value"] for name, each in part.items()} == report["tasks"]["belebele"][figures]
    assert all(each["accuracy"]["low"] <= each["accuracy"]["value"] <= each["accuracy"]["high"]
               for each in task["languages"].values())  # fmt: skip
    assert read_report(tmp_path / "one") == report


def test_metrics_of_a_whole_language_take_the_place_of_the_means_and_have_no_interval():
    rows = [
        prediction(code, 0.5, 0.0, id=str(n)) | {"answer": f"{code} {n}"} for code in ("en", "de") for n in range(3)
    ]
    rows[0].pop("answer")  # did not fit, and was not answered
    seen = []

    def corpus(answers, references):
        seen.append((answers, references))
        return {"f1": len(" ".join(answers)) / 100}

    summary = summarise(rows, ("f1", "em"), "en", corpus)
    assert seen == [(["de 0", "de 1", "de 2"], [["y"]] * 3), (["", "en 1", "en 2"], [["y"]] * 3)]
    assert [summary["languages"][code]["f1"] for code in ("de", "en")] == [0.14, 0.1]
    assert summary["gap"] == {"f1": pytest.approx(-0.04), "em": 0.0}
    about = measure(rows, summary, whole=("f1",))
    assert about["languages"]["de"] == {
        "f1": {"value": 0.14, "low": None, "high": None},
        "em": {"value": 0.0, "low": 0.0, "high": 0.0},
    }
    assert measure(rows, summary, whole=("f1", "em"))["gap"] == {
        name: {"value": value, "low": None, "high": None} for name, value in (summary["gap"] or {}).items()
    }
    _, cells = rendered(markdown(build("m", "n", "en", {"t": summary}), {}, None, build_statistics({"t": about})))
    assert cells[1] == ["en (source)", "10.0", "–", "0.0", "3", "0.0", "English"]


def test_the_tables_show_intervals_names_and_groups():
    report, statistics = measured(parallel(BELEBELE))
    _, cells = rendered(markdown(report, {}, None, statistics))
    assert cells[0] == ["language", "accuracy %", "95% interval", "accuracy_norm %", "rows", "unparsed %", "name"]
    assert [line[0] for line in cells[1:123]] == ["eng_Latn (source)", *sorted(set(BELEBELE) - {"eng_Latn"})]
    about, task = statistics["tasks"]["belebele"], report["tasks"]["belebele"]
    for line in cells[1:123]:
        code = line[0].split()[0]
        low, high = (100 * about["languages"][code]["accuracy"][end] for end in ("low", "high"))
        scores = [f"{100 * task['languages'][code][name]:.1f}" for name in ("accuracy", "accuracy_norm")]
        unparsed = f"{100 * task['languages'][code]['parse_failure_rate']:.1f}"
        assert line == [
            line[0],
            scores[0],
            f"{low:.1f}..{high:.1f}",
            scores[1],
            "30",
            unparsed,
            find_language(code).name,
        ]
    assert cells[124][0] == "gap" and cells[124][2].startswith(("+", "-")) and ".." in cells[124][2]
    groups = {line[0]: int(line[4]) for line in cells[125:] if line[0] != "mean by"}
    assert groups["Indo-European"] > 40 and groups["Latn"] > 60 and groups["Hang"] == 1
    classes = [find_language(code).resource for code in BELEBELE if code != "eng_Latn"]
    assert about["resources"].keys() == {str(level) for level in classes if level is not None} and None in classes
    assert sum(groups[key] for key in about["families"]) == sum(groups[key] for key in about["scripts"]) == 121
    assert [key for key in groups if key.startswith("class")] == [f"class {level}" for level in about["resources"]]


@pytest.mark.parametrize("baseline", [False, True])
@pytest.mark.parametrize("width", [80, 160])
def test_122_languages_fit_the_terminal_with_nothing_cut(width, baseline):
    report, statistics = measured(parallel(BELEBELE))
    console = Console(file=io.StringIO(), width=width)
    console.print(*table(report, report if baseline else None, statistics))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    about = statistics["tasks"]["belebele"]["languages"]
    for code in BELEBELE:
        low, high = (100 * about[code]["accuracy"][end] for end in ("low", "high"))
        (line,) = (line for line in lines if line.startswith(f"{code} "))
        assert f" {low:.1f}..{high:.1f} " in line
        assert (f"  {find_language(code).name}" in line) == (width == 160)
    assert width == 80 or "…" not in console.file.getvalue()  # only names may be cut
    assert len(lines) < 122 + 95  # one line per language, and the groups


def test_what_fits_no_terminal_is_split_by_columns():
    """Each part repeats the first column. No heading or figure is cut, and none is missing."""
    header = ["method", *(f"lang{number}" for number in range(30)), "name"]
    lines = [[f"run {row}", *(f"{row}{number:02d}.5" for number in range(30)), "a name"] for row in range(3)]
    console = Console(file=io.StringIO(), width=80)
    console.print(fitted("scores", Cells(header, [lines[:2]], lines[2:])))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    parts = text.split("scores")[1:]
    assert max(map(len, text.splitlines())) <= 80 and len(parts) == 4 and text.count("(continued)") == 3
    found: dict[str, list[str]] = {}
    for part in parts:
        for line in part.splitlines():
            if words := re.match(r"(method|run \d)(.*)", line):
                found.setdefault(words[1], []).extend(words[2].split())
    assert found == {line[0]: line[1:-1] for line in (header, *lines)}


def test_a_file_that_is_not_a_report_is_refused_in_one_line(tmp_path):
    with pytest.raises(InputError, match=r"has no readable report.json; evaluate that run first"):
        read_report(tmp_path)
    for text in ("{", "[]", '{"model": 1}', '{"model": "", "method": "", "source": "", "tasks": {"t": {}}}'):
        (tmp_path / "report.json").write_text(text)
        with pytest.raises(InputError, match=r"report.json; evaluate|is not a report; evaluate"):
            read_report(tmp_path)


def test_what_did_not_fit_and_other_settings_are_said():
    rows = [prediction("en", 1.0, 1.0) | {"fit": "whole"}] + [
        prediction("de", 0.0, 0.0, id=str(number)) | {"fit": fit} for number, fit in enumerate(("cut", "cut", "none"))
    ]
    summaries = {"xquad": summarise(rows, ("f1", "em"), "en")}
    assert {"cut": 2, "too_long": 1}.items() <= summaries["xquad"]["languages"]["de"].items()
    assert not {"cut", "too_long"} & summaries["xquad"]["languages"]["en"].keys()
    short, long = (build("m", "lora", "en", summaries, f"at most {tokens} tokens") for tokens in (256, 512))
    lines = all_cautions(short, long)
    assert lines[0] == "The settings differ: this run has at most 256 tokens; the baseline at most 512 tokens."
    assert any(line.startswith("xquad: Contexts that were cut to fit: de 2 of 3.") for line in lines)
    assert any(line.startswith("xquad: Questions that did not fit and score 0: de 1 of 3.") for line in lines)
    assert all(line.removeprefix("xquad: ") in notes(short, {}, long)["xquad"] for line in lines)
    assert not any("settings" in line for line in all_cautions(short, short) + all_cautions(short, BASELINE))
