"""`beside --html`: the page of runs side by side has the figures of their own files and of `compare`."""

import json
import re
from pathlib import Path
from typing import Any

import fabricated
import numpy as np
import pytest

from jaxprefix.errors import InputError
from jaxprefix.evaluation import statistics
from jaxprefix.evaluation.compare import Compare, compare
from jaxprefix.evaluation.side_by_side import Beside, beside

SPECIFICATION = """
[run]
task = "babel-qa"
[evaluation]
languages = "en,ar,de"
[[table]]
name = "Methods"
[[table.grid]]
run.method = ["none", "prefix", "lora"]
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The directories of none, prefix and lora."""
    study, folder = fabricated.study(tmp_path_factory.mktemp("runs") / "all", SPECIFICATION, 30)
    return [folder.evaluation(cell) for cell in study.cells()]


def page(runs: list[Path], path: Path) -> dict[str, Any]:
    beside(Beside(",".join(map(str, runs)), html=path))
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text(encoding="utf-8"))
    assert found
    return json.loads(found[1])


def test_the_figures_are_those_of_the_runs(runs: list[Path], tmp_path: Path):
    values = page(runs, tmp_path / "page.html")
    (table,) = values["tables"]
    assert [row["name"] for row in table["rows"]] == ["none", "prefix", "lora"] and len(values["curves"]) == 2
    for run, row in zip(runs, table["rows"], strict=True):
        own = json.loads((run / "statistics.json").read_text(encoding="utf-8"))["tasks"]["babel-qa"]
        figures = row["tasks"]["babel-qa"]
        assert figures["metric"] == "f1" and figures["n"] == 90
        for code, estimate in figures["languages"].items():
            assert estimate == pytest.approx(own["languages"][code]["f1"])
        assert figures["means"]["others"] == pytest.approx(own["mean_others"]["f1"])
        assert figures["means"]["gap"] == pytest.approx(own["gap"]["f1"])
        assert figures["means"]["script Arab"] == pytest.approx(own["scripts"]["Arab"]["scores"]["f1"])


def test_the_baseline_is_the_run_without_a_method(runs: list[Path], tmp_path: Path):
    rows = page(runs, tmp_path / "page.html")["tables"][0]["rows"]
    assert [row["is_baseline"] for row in rows] == [True, False, False]
    found = [row["tasks"]["babel-qa"]["against_baseline"] for row in rows]
    assert found[0] is None
    for run, difference in zip(runs[1:], found[1:], strict=True):
        expected = compare(Compare(run, runs[0]))["tasks"]["babel-qa"]["metrics"]["f1"]["mean_others"]
        assert difference | {"p_holm": None} == expected and difference["difference"] > 0
    assert [part["p_holm"] for part in found[1:]] == list(statistics.holm(np.array([part["p"] for part in found[1:]])))


def test_runs_of_one_method_have_different_names_and_no_paths(runs: list[Path], tmp_path: Path):
    (tmp_path / "other").mkdir()
    again = tmp_path / "other" / runs[2].name
    again.symlink_to(runs[2])
    rows = page([runs[2], again], tmp_path / "page.html")["tables"][0]["rows"]
    assert [row["name"] for row in rows] == [f"1: lora {runs[2].name}", f"2: lora {runs[2].name}"]
    assert [row["tasks"]["babel-qa"]["against_baseline"] for row in rows] == [None, None]
    assert str(tmp_path) not in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_an_existing_page_is_not_overwritten(runs: list[Path], tmp_path: Path):
    (tmp_path / "page.html").write_text("mine")
    with pytest.raises(InputError, match="already exists"):
        beside(Beside(",".join(map(str, runs)), html=tmp_path / "page.html"))
    with pytest.raises(InputError, match="--answers is -1; expected 0 or more"):
        beside(Beside(",".join(map(str, runs)), html=tmp_path / "new.html", answers=-1))
