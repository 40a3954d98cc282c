"""report.html: its figures are those of study.json, and no answer of a model can become a part of the page."""

import base64
import gzip
import html.parser
import json
import shutil
from pathlib import Path
from typing import Any

import fabricated
import pytest

from jaxprefix.errors import InputError
from jaxprefix.evaluation.html.answers import LONGEST
from jaxprefix.io import terminal
from jaxprefix.study import __main__ as command
from jaxprefix.study.folder import Folder
from jaxprefix.study.html import Report, report
from jaxprefix.study.plan import Cell, Plan
from jaxprefix.tasks.task import Example

HOSTILE = '</script><script>document.title = "owned"</script><!--<img src=x onerror="alert(1)">'
BIDI = "\u202egnihtyreve\u202c \u2066\u200f'\"&amp;"
LONG = "long " * 20_000


def hostile(cell: Cell, example: Example, right: bool) -> str:
    """Each method has another kind of answer."""
    kinds = {"prefix": HOSTILE, "lora": BIDI, "none": LONG}
    return example.response if right else kinds.get(cell.config.method, "\ud800 is half of a character")


class Scripts(html.parser.HTMLParser):
    """The contents of the <script> elements with an id, and the attributes that would load something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found, self.loading, self.languages, self._id = dict[str, str](), list[str](), list[str](), ""
        self.count = 0
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.loading += [f"{tag} {name}" for name in ("src", "href", "data", "srcset") if name in values]
        self.languages += [values["lang"] or ""] if tag == "html" else []
        self.count += tag == "script"
        self._id = values.get("id") or "" if tag == "script" else ""

    def handle_data(self, data: str) -> None:
        if self._id:
            self.found[self._id] = self.found.get(self._id, "") + data


def contents(path: Path) -> tuple[Scripts, dict[str, Any], dict[str, Any]]:
    """The scripts of a page, its figures, and its questions and answers."""
    scripts = Scripts(path.read_text(encoding="utf-8"))
    packed = gzip.decompress(base64.b64decode(scripts.found["packed"]))
    return scripts, json.loads(scripts.found["data"]), json.loads(packed)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Folder]:
    return fabricated.study(tmp_path_factory.mktemp("study") / "here", answer=hostile)


@pytest.fixture(scope="module")
def page(made: tuple[Plan, Folder]) -> tuple[Scripts, dict[str, Any], dict[str, Any]]:
    return contents(report(Report(made[1].root, answers=4)))


def predictions(directory: Path) -> dict[tuple[str, str], dict[str, Any]]:
    lines = (directory / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return {(row["language"], row["id"]): row for row in map(json.loads, lines)}


def test_the_figures_are_those_of_study_json(made, page):
    study = json.loads((made[1].root / "study.json").read_text(encoding="utf-8"))
    assert [table["name"] for table in page[1]["tables"]] == list(study["tables"]) == ["Methods", "Ranks", "Sources"]
    for table in page[1]["tables"]:
        rows = study["tables"][table["name"]]["rows"]
        for name in ("tasks", "labels", "cells", "seeds", "is_baseline"):
            assert [row[name] for row in table["rows"]] == [row[name] for row in rows]
        counts = [[study["cells"][cell]["trainable_parameters"] for cell in row["cells"]] for row in rows]
        assert [row["trainable"] for row in table["rows"]] == [count[0] for count in counts]
    names = [row["name"] for row in page[1]["tables"][1]["rows"]]
    assert names == ["lora, rank 4", "lora, rank 8", "prefix"]
    assert all(difference["p_holm"] >= difference["p"] for difference in differences(study))


def differences(study: dict[str, Any]) -> list[dict[str, Any]]:
    rows = [row for table in study["tables"].values() for row in table["rows"]]
    return [difference for row in rows if (difference := row["tasks"]["babel-qa"]["against_baseline"])]


def test_a_matrix_has_the_gains_of_its_rows(page):
    table = page[1]["tables"][2]
    scores = {
        (row["labels"]["method"], row["labels"]["language"]): row["tasks"]["babel-qa"]["languages"]
        for row in table["rows"]
    }
    (matrix,) = table["matrices"]["babel-qa"]
    assert [line["source"] for line in matrix["lines"]] == ["en", "ar"]
    for line in matrix["lines"]:
        source = line["source"]
        assert table["rows"][line["row"]]["labels"] == {"method": "lora", "language": source}
        for code, value in zip(matrix["languages"], line["values"], strict=True):
            assert value == scores["lora", source][code]["value"] - scores["none", source][code]["value"]


def test_a_curve_is_that_of_the_metrics(made, page):
    _, folder = made
    cell = page[1]["tables"][0]["rows"][1]["cells"][0]
    rows = [json.loads(line) for line in (folder.root / cell / "metrics.jsonl").read_text().splitlines()]
    losses = {row["step"]: row["loss"] for row in rows if "loss" in row}
    curve = page[1]["curves"][cell]
    assert all(losses[step] == loss for step, loss in curve["training"])
    assert 100 <= len(curve["training"]) <= 150 and curve["training"][-1][0] == 400
    assert curve["held_out"] == [[row["step"], row["held_out_loss"]] for row in rows if "held_out_loss" in row]
    assert cell.replace("prefix", "none") not in page[1]["curves"]


def test_all_runs_have_the_same_questions_in_all_languages(made, page):
    questions, answers = page[2]["questions"], page[2]["answers"]
    by_language = {code: [q["id"] for q in questions if q["language"] == code] for code in ("en", "ar", "de", "sw")}
    assert {len(ids) for ids in by_language.values()} == {4} and len({tuple(ids) for ids in by_language.values()}) == 1
    shown = {cell for table in page[1]["tables"] for row in table["rows"] for cell in row["cells"]}
    assert set(answers) == shown
    for cell, rows in answers.items():
        original = predictions(made[1].root / cell)
        assert sorted(row[0] for row in rows) == list(range(16))
        for number, text, read, score, notes in rows:
            row = original[questions[number]["language"], questions[number]["id"]]
            assert questions[number]["prompt"] == row["prompt"] and score == row["scores"]["f1"]
            assert (text == row["prediction"]) == (len(row["prediction"]) <= LONGEST)
            assert read == "" and notes == []


def test_no_answer_is_a_part_of_the_page(page):
    scripts, data, packed = page
    assert scripts.count == 4 and set(scripts.found) == {"data", "packed"}
    assert scripts.loading == [] and scripts.languages == ["en"]
    assert "<" not in scripts.found["data"] and data["tables"][0]["notes"][0] == "A note </script> with <b>markup</b>."
    texts = {text for rows in packed["answers"].values() for _, text, *_ in rows}
    assert {HOSTILE, BIDI} <= texts
    assert any("[… 90,000 more characters …]" in text for text in texts)
    assert max(map(len, texts)) < LONGEST + 50


def test_the_page_tells_no_path(made):
    text = (made[1].root / "report.html").read_text(encoding="utf-8")
    assert str(made[1].root) not in text and str(Path.home()) not in text


def test_the_same_study_elsewhere_is_the_same_page(made, page, tmp_path: Path):
    copy = Path(shutil.copytree(made[1].root, tmp_path / "copy"))
    before = (copy / "study.json").read_bytes()
    assert report(Report(copy, answers=4)).read_bytes() == (made[1].root / "report.html").read_bytes()
    assert (copy / "study.json").read_bytes() == before


def test_the_command_writes_it(made, monkeypatch, capsys, tmp_path: Path):
    copy = Path(shutil.copytree(made[1].root, tmp_path / "copy"))
    monkeypatch.setattr("sys.argv", ["study", "report", str(copy), "--answers", "0"])
    terminal.run(command.main)
    assert capsys.readouterr().out == f"page: {copy / 'report.html'}\n"
    assert contents(copy / "report.html")[2]["questions"] == []


def test_what_has_no_tables_is_refused(tmp_path: Path):
    with pytest.raises(
        InputError, match=r"has no study.json; run the study to its end: python -m jaxprefix.study SPEC"
    ):
        report(Report(tmp_path))
    with pytest.raises(InputError, match="--answers is -1; expected 0 or more"):
        report(Report(tmp_path, answers=-1))
