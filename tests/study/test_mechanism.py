"""A study that probes its runs: its figures are those of `probe`, and its correlations those of scipy."""

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike
from scipy.stats import spearmanr
from test_study import write_model

from jaxprefix.errors import InputError
from jaxprefix.probe.probe import probe
from jaxprefix.probe.settings import Probe
from jaxprefix.study import __main__ as command
from jaxprefix.study import specification
from jaxprefix.study import work as working
from jaxprefix.study.folder import Folder
from jaxprefix.study.listing import listing, state
from jaxprefix.study.mechanism import correlation
from jaxprefix.study.plan import Plan, plan
from jaxprefix.study.specification import parse

LANGUAGES = ("en", "de", "sw", "ru", "tr", "hi")
SPECIFICATION = f"""
[run]
task = "babel-choice"
steps = 2
batch = 4
limit = 32
max_length = 256
lr = 1e-1
[evaluation]
limit = 6
batch = 8
languages = "{",".join(LANGUAGES)}"
[probe]
probes = "mexa,forgetting"
texts = "babel-nli"
languages = "{",".join(LANGUAGES)}"
limit = 8
batch = 8
[[table]]
name = "Mechanism"
[[table.grid]]
run = {{ method = ["none", "lora"] }}
"""
FIGURES = {"mexa score": ("mexa", "score"), "forgetting loss": ("forgetting", "loss")}
FIGURES |= {"forgetting added loss": ("forgetting", "added loss")}


def spearman(one: ArrayLike, other: ArrayLike) -> float:
    return spearmanr(one, other)[0]  # type: ignore[index]


def planned(model: Path, text: str = SPECIFICATION) -> Plan:
    return plan(parse(text.encode(), "mechanism").smaller([str(model)]))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Folder]:
    place = tmp_path_factory.mktemp("mechanism")
    study, folder = planned(write_model(place / "tiny")), Folder(place / "study", mesh="1x1")
    with pytest.MonkeyPatch.context() as patch:
        for module in ("evaluation.plots", "study.pictures", "probe.probe"):
            patch.setattr(f"jaxprefix.{module}.draw", lambda *_: {"Mechanism": []})
        command.run(study, folder, quiet=True)
    return study, folder


def rows(folder: Folder) -> list[dict[str, Any]]:
    return json.loads((folder.root / "study.json").read_text())["tables"]["Mechanism"]["rows"]


def test_figures_are_those_of_probe(done: tuple[Plan, Folder], tmp_path: Path):
    study, folder = done
    settings = Probe("mexa,forgetting", ",".join(LANGUAGES), texts="babel-nli", limit=8, batch=8, output=tmp_path)
    cells = study.cells()
    found = probe([folder.run(cell) for cell in cells], replace(settings, mesh="1x1"), quiet=True)["probes"]
    for cell, row in zip(cells, rows(folder), strict=True):
        assert set(row["probes"]) == set(FIGURES)
        for name, (kind, figure) in FIGURES.items():
            by_language = found[kind][figure][cell.config.method]
            expected = {code: by_language[code]["mean"]["value"] for code in LANGUAGES if code in by_language}
            assert len(expected) >= 5
            assert row["probes"][name]["languages"] == pytest.approx(expected, abs=1e-6)
            assert row["probes"][name]["mean"] == pytest.approx(fmean(expected.values()), abs=1e-6)
    none, lora = (row["probes"]["forgetting added loss"] for row in rows(folder))
    assert set(none["languages"].values()) == {0.0} and none["gap"] == {"babel-choice": None}
    assert abs(lora["mean"]) > 1e-3


def test_the_correlation_is_that_of_scipy_over_the_other_languages(done: tuple[Plan, Folder]):
    _, folder = done
    lora = rows(folder)[1]
    scores = lora["tasks"]["babel-choice"]["languages"]
    added = lora["probes"]["forgetting added loss"]
    others = [code for code in LANGUAGES if code != "en"]
    gaps = [scores["en"]["value"] - scores[code]["value"] for code in others]
    assert len(set(gaps)) > 1
    expected = spearman([added["languages"][code] for code in others], np.round(gaps, 6))
    found = added["gap"]["babel-choice"]
    assert found["value"] == pytest.approx(expected)
    assert -1 <= found["low"] <= found["value"] <= found["high"] <= 1


def test_ties_and_constants_correlate_as_in_scipy():
    random = np.random.default_rng(0)
    pairs = random.integers(0, 4, (30, 2)).astype(float)  # many ties
    pairs[:, 1] += pairs[:, 0]
    found = correlation(pairs)
    assert found is not None and found["value"] == pytest.approx(spearman(pairs[:, 0], pairs[:, 1]))
    resampled = [spearman(*pairs[random.integers(0, 30, 30)].T) for _ in range(2000)]
    assert [found["low"], found["high"]] == pytest.approx(np.quantile(resampled, [0.025, 0.975]), abs=0.05)
    assert correlation(np.ones((30, 2)) * [1, 0] + [[0, number] for number in range(30)]) is None


def test_the_files_have_the_figures(done: tuple[Plan, Folder]):
    study, folder = done
    assert all((folder.run(cell) / "probes.json").is_file() for cell in study.cells())
    lora = rows(folder)[1]["probes"]["forgetting added loss"]
    text, tex = ((folder.root / f"study.{kind}").read_text() for kind in ("md", "tex"))
    for content in (text, tex):
        lines = [[cell.strip(" |\\") for cell in re.split(r"[|&]", line)] for line in content.splitlines()]
        (line,) = [
            [cell for cell in line if cell] for line in lines if "forgetting added loss" in line and "lora" in line
        ]
        assert line[2] == f"{lora['mean']:.3f}" and line[3].startswith(f"{lora['gap']['babel-choice']['value']:+.2f} (")
    with (folder.root / "study.csv").open() as file:
        lines = {(line["row"], line["metric"], line["figure"]): line["value"] for line in csv.DictReader(file)}
    assert float(lines["method=lora", "forgetting added loss", "sw"]) == pytest.approx(
        lora["languages"]["sw"], abs=1e-6
    )


def test_done_probes_are_kept_and_a_failed_one_is_retried(done, tmp_path: Path, monkeypatch, capsys, no_pictures):
    study = done[0]
    folder = Folder(Path(shutil.copytree(done[1].root, tmp_path / "study")), mesh="1x1")
    none, lora = study.cells()
    (folder.root / "cells" / f"{lora.run}.probe.json").unlink()
    monkeypatch.setattr("jaxprefix.study.pictures.draw", lambda *_: {"Mechanism": []})
    monkeypatch.setattr("jaxprefix.probe.probe.draw", lambda *_: [])
    probed = []

    def fail(runs: list[Path], *_: Any, **__: Any) -> None:
        probed.append(runs[0].name)
        raise MemoryError("RESOURCE_EXHAUSTED: no room")

    with monkeypatch.context() as patch:
        patch.setattr(working, "probe", fail)
        command.run(study, folder, quiet=True)
        command.run(study, folder, quiet=True)
    assert probed == [lora.run] and state(none, folder) == "probed" and state(lora, folder) == "failed"
    assert "1 of 2 cells failed" in capsys.readouterr().out
    row = rows(folder)[1]
    assert row["probes"] == {} and "no room" in row["failed"] and "babel-choice" in row["tasks"]
    command.run(study, folder, retry=True, quiet=True)
    assert (folder.root / "study.json").read_bytes() == (done[1].root / "study.json").read_bytes()


def test_the_list_has_the_command_of_the_probe(done: tuple[Plan, Folder]):
    study, folder = done
    line = list(listing(study, folder))[1]
    assert line.startswith("probed") and line.endswith(
        f"python -m jaxprefix.probe {folder.run(study.cells()[1])} --probes mexa,forgetting "
        f"--languages {','.join(LANGUAGES)} --texts babel-nli --limit 8 --batch 8 --mesh 1x1"
    )


GRID = '[[table]]\nname = "T"\n[[table.grid]]\n'
BAD = {
    "an unknown setting": ("probe.banana = 1", "unknown setting 'probe.banana'"),
    "a list": ('probe.languages = ["en", "de"]', "probe.languages is ['en', 'de']; expected a text"),
    "a wrong value": ("probe.limit = 0", "--limit is 0; expected at least 1"),
    "an unknown probe": ('probe.probes = "banana"', "--probes 'banana' is unknown; expected mexa"),
    "contradicting settings": ('probe = {lens_task = "xquad"}', "--lens-task xquad is for the probe lens"),
    "a setting of the machine": ('probe.data = "/mirror"', "data is not a setting of a specification; give --data"),
    "another directory": ('probe.output = "x"', "output is not a setting of a specification"),
    "a task": ('probe = {probes = "forgetting", forgetting_task = "xnli"}', "forgetting_task is not a setting of a "),
    "no object": ("probe = 3", "probe is 3; expected an object"),
    "two probes of a run": ("probe.limit = 8\n[[table.grid]]\nprobe.limit = 9", "with other settings; give both"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_probes_are_refused_in_one_line(name: str):
    text, message = BAD[name]
    with pytest.raises(InputError) as refused:
        plan(parse((GRID + text).encode(), "t"))
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_a_cell_of_two_grids_keeps_its_probe():
    grids = "run.seed = 0\nprobe.limit = 8\n[[table.grid]]\nrun.seed = [0, 1]"
    assert [cell.probe for cell in plan(parse((GRID + grids).encode(), "t")).cells()] == [Probe(limit=8), None]


def test_a_penalty_makes_a_row_of_its_own():
    """A setting that only some cells of a method have is a label."""
    grids = (
        'run.method = "full"\n[[table.grid]]\nrun = {method = "full", full = {regularise = "l2-sp", strength = 0.1}}'
    )
    rows = plan(parse((GRID + grids).encode(), "t")).rows["T"]
    assert [row.labels for row in rows] == [
        {"full.regularise": None, "full.strength": None},
        {"full.regularise": "l2-sp", "full.strength": 0.1},
    ]


def test_the_small_form_of_the_package_is_a_plan():
    small_form = plan(specification.read("mechanism").smaller(steps=5, limit=8, seeds=[0]))
    found = small_form.rows["Embedded world"]
    assert [row.labels["method"] for row in found].count("full") == 4 and len(found) == 8
    assert all(cell.probe and "forgetting" in cell.probe.chosen for cell in small_form.cells())


def test_the_comment_on_ewc_is_a_grid_and_its_file_has_no_directory_in_names():
    text = (specification.SPECS / "mechanism.toml").read_text(encoding="utf-8")
    (grid,) = (line.removeprefix("# ") for line in text.splitlines() if line.startswith("# run ="))
    cells = [plan(parse((GRID + line).encode(), "t")).cells() for line in (grid, grid.replace("texts", "/data/texts"))]
    assert [cell.setting("full.fisher_text") for (cell,) in cells] == ["texts.jsonl", "texts.jsonl"]
    assert cells[0][0].run == cells[1][0].run and cells[1][0].config != cells[0][0].config
