"""Runs side by side: means computed by hand, the gap, and runs with different questions are refused by name."""

import re
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from jaxprefix.errors import InputError
from jaxprefix.evaluation import __main__ as evaluation
from jaxprefix.evaluation.report import build, summarise, write
from jaxprefix.evaluation.side_by_side import Beside, beside
from jaxprefix.io import terminal

# Percent, by method and language. de and fr share class, script and family; sw is Atlantic-Congo and of class 2.
SCORES = {
    "none": {"en": 40, "de": 20, "fr": 30, "ru": 10, "sw": 0},
    "lora": {"en": 100, "de": 80, "fr": 90, "ru": 60, "sw": 50},
}


def run(directory: Path, method: str, scores: dict, count: int = 10, task: str = "mine") -> None:
    rows = [
        {
            "language": code,
            "id": str(number),
            "scores": {"em": float(number < value * count // 100)},
            "parse_failure": 0,
        }
        for code, value in scores.items()
        for number in range(count)
    ]
    write(build("m", method, "en", {task: summarise(rows, ["em"], "en")}), {}, directory)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for method, scores in SCORES.items():
        run(Path(method), method, scores)


def test_every_mean_is_the_one_made_by_hand():
    (title, cells), *rest = beside(Beside("none,lora", output=Path("table.md"))).items()
    assert (title, rest) == ("mine, em in percent", [])
    assert cells.header == ["language", "none", "lora"]
    assert cells.sections == [
        [
            ["en (source)", "40.0", "100.0"],
            *(["de", "20.0", "80.0"], ["fr", "30.0", "90.0"], ["ru", "10.0", "60.0"], ["sw", "0.0", "50.0"]),
        ],
        [["Atlantic-Congo", "0.0", "50.0"], ["Indo-European", "20.0", "76.7"]],
        [["Cyrl", "10.0", "60.0"], ["Latn", "16.7", "73.3"]],
        [["class 2", "0.0", "50.0"], ["class 4", "10.0", "60.0"], ["class 5", "25.0", "85.0"]],
    ]
    assert cells.closing == [["mean of others", "15.0", "70.0"], ["gap", "+25.0", "+30.0"]]
    tokens = MarkdownIt("commonmark").enable("table").parse(Path("table.md").read_text(encoding="utf-8"))
    lines = sum(map(len, cells.sections)) + len(cells.closing)
    assert sum(token.type == "tr_open" for token in tokens) == 1 + lines


def test_columns_of_equal_methods_are_named_by_their_runs(capsys: pytest.CaptureFixture):
    run(Path("again"), "lora", SCORES["lora"])
    beside(Beside("lora,again"))
    printed = capsys.readouterr().out
    assert re.search(r"language\s.*lora\s.*again", printed)
    assert max(map(len, printed.splitlines())) <= 80


def test_the_command_prints_it(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["evaluation", "beside", "none,lora"])
    terminal.run(evaluation.main)
    text = " ".join("".join(" " if "─" <= letter <= "╿" else letter for letter in capsys.readouterr().out).split())
    assert "mean of others 15.0 70.0 gap +25.0 +30.0" in text


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ("none", "none is one run; give several, comma-separated: RUN,RUN"),
        ("none,nowhere", "nowhere has no readable report.json; evaluate that run first"),
        ("none,fewer", "none and fewer have answered 10 and 5 rows of de in mine; evaluate both on the same rows"),
        ("none,other", "none,other have no task in common; evaluate them on the same tasks"),
    ],
)
def test_reports_that_cannot_be_compared_are_refused(runs: str, message: str):
    run(Path("fewer"), "lora", SCORES["lora"], count=5)
    run(Path("other"), "lora", SCORES["lora"], task="theirs")
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        beside(Beside(runs))


def test_existing_files_are_not_overwritten():
    Path("table.md").write_text("mine")
    with pytest.raises(InputError, match="already exists"):
        beside(Beside("none,lora", output=Path("table.md")))
    assert Path("table.md").read_text() == "mine"
