"""A small study: its figures are those of the runs, and it resumes, shares, and survives a failing cell."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pytest
import small
import tyro

from jaxprefix.errors import InputError
from jaxprefix.evaluation import statistics
from jaxprefix.evaluation.__main__ import Command as EvaluationCommand
from jaxprefix.evaluation.compare import Compare, compare
from jaxprefix.evaluation.report.intervals import Estimate
from jaxprefix.io import terminal
from jaxprefix.runs.config import RunConfig
from jaxprefix.study import __main__ as command
from jaxprefix.study import specification
from jaxprefix.study import work as working
from jaxprefix.study.folder import Folder
from jaxprefix.study.listing import listing
from jaxprefix.study.plan import Plan, plan
from jaxprefix.study.published import verdict
from jaxprefix.study.select import choose
from jaxprefix.study.specification import Grid, Known, parse
from jaxprefix.tasks.babel.choice import BABEL_CHOICE
from jaxprefix.train import metrics
from jaxprefix.train.__main__ import Command as TrainCommand

SPECIFICATION = """
about = "Small & <quick>."
[run]
task = "babel-choice"
steps = 3
batch = 4
limit = 64
max_length = 256
[evaluation]
limit = 6
batch = 8
languages = "en,de,sw,ru"
[[table]]
name = "Methods"
select = "SELECT"
baseline = { method = "none" }
known = [{ where = { method = "lora" }, task = "babel-choice", value = 100.1, figure = "source" }]
[[table.grid]]
run = { method = ["none", "lora"], lr = [1e-3, 1e-1], seed = [0, 1] }
"""
KINDS = """
[[table]]
name = "Sizes"
kind = "parameters"
known = [{ where = { method = "lora" }, value = 1920 }]
[[table.grid]]
run = { method = ["none", "lora", "prefix"] }
[[table]]
name = "Sources"
kind = "matrix"
baseline = { method = "none" }
[[table.grid]]
run = { method = ["none", "lora"], lr = 1e-1, language = ["en", "de"] }
"""

MORE = """
[[table]]
name = "Ranks"
kind = "line"
x = "lora.rank"
[[table.grid]]
run = { method = "lora", lora.rank = [4, 8], lr = 1e-3 }
[[table.grid]]
run = { method = "prefix" }
[[table]]
name = "Temperature"
kind = "line"
x = "evaluation.temperature"
[[table.grid]]
run = { method = "lora", task = "babel-qa", lr = 1e-3 }
evaluation = { temperature = [0.0, 0.7] }
[[table]]
name = "Scripts"
kind = "groups"
by = "script"
languages = "en,ru,sw"
[[table.grid]]
run = { method = ["none", "lora"], lr = 1e-3 }
"""


def write_model(directory: Path) -> Path:
    """A tiny random model with a tokenizer that has learnt words of the embedded world."""
    rows = [row for code in ("en", "de", "sw", "ru") for row in BABEL_CHOICE.load(code, "validation", None)]
    return small.write_model(directory, texts=[row["passage"] for row in rows])


def planned(model: Path, text: str = SPECIFICATION, select: str = "loss") -> Plan:
    return plan(parse(text.replace("SELECT", select).encode(), "small").smaller([str(model)]))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def done(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Folder]:
    study, folder = planned(model, SPECIFICATION + KINDS), Folder(tmp_path_factory.mktemp("study") / "here", mesh="1x1")
    command.run(study, folder, quiet=True)
    return study, folder


def copied(done: tuple[Plan, Folder], tmp_path: Path) -> Folder:
    return Folder(Path(shutil.copytree(done[1].root, tmp_path / "study")), mesh="1x1")


def result(folder: Folder) -> dict[str, Any]:
    return json.loads((folder.root / "study.json").read_text())


def scores(directory: Path) -> dict[tuple[str, str], float]:
    rows = small.predictions(directory)
    return {(row["language"], row["id"]): row["scores"]["accuracy"] for row in rows}


def test_figures_are_those_of_the_predictions(done: tuple[Plan, Folder]):
    _, folder = done
    base, lora = result(folder)["tables"]["Methods"]["rows"]
    assert base["labels"] == {"method": "none"} and lora["seeds"] == [0, 1]
    by_seed = [scores(folder.root / cell) for cell in lora["cells"]]
    figures = lora["tasks"]["babel-choice"]
    for language in ("en", "de", "sw", "ru"):
        expected = [fmean(value for key, value in run.items() if key[0] == language) for run in by_seed]
        assert figures["languages"][language]["value"] == pytest.approx(fmean(expected))
    others = [[fmean(v for k, v in run.items() if k[0] == code) for code in ("de", "sw", "ru")] for run in by_seed]
    assert figures["means"]["others"]["value"] == pytest.approx(np.mean(others))
    assert figures["sd"]["others"] == pytest.approx(stdev(map(fmean, others)))
    gap = figures["means"]["source"]["value"] - figures["means"]["others"]["value"]
    assert figures["means"]["gap"]["value"] == pytest.approx(gap)
    assert figures["n"] == 24
    differences = fmean(map(fmean, others)) - base["tasks"]["babel-choice"]["means"]["others"]["value"]
    assert figures["against_baseline"]["difference"] == pytest.approx(differences)


def test_a_test_against_the_baseline_is_that_of_compare(done: tuple[Plan, Folder], capsys):
    """For rows of one seed."""
    _, folder = done
    none, _, lora, _ = result(folder)["tables"]["Sources"]["rows"]
    compared = compare(Compare(folder.root / lora["cells"][0], folder.root / none["cells"][0]))
    expected = compared["tasks"]["babel-choice"]["metrics"]["accuracy"]["mean_others"]
    found = lora["tasks"]["babel-choice"]["against_baseline"]
    assert found["difference"] != 0
    assert {key: found[key] for key in ("a", "b", "difference", "p", "low", "high", "n")} == pytest.approx(
        {key: expected[key] for key in ("a", "b", "difference", "p", "low", "high", "n")}
    )
    tests = [
        row["tasks"]["babel-choice"]["against_baseline"] for row in result(folder)["tables"]["Sources"]["rows"][2:]
    ]
    assert [test["p_holm"] for test in tests] == list(statistics.holm(np.array([test["p"] for test in tests])))


def test_the_learning_rate_has_the_least_mean_held_out_loss(done: tuple[Plan, Folder]):
    study, folder = done
    row = study.rows["Methods"][1]
    lines = {cell: metrics.read(folder.run(cell)) for cell in row.cells}
    last = {cell: [line["held_out_loss"] for line in lines[cell] if "held_out_loss" in line][-1] for cell in lines}
    losses = {rate: fmean(last[cell] for cell in cells) for rate, cells in row.candidates.items()}
    choice = choose(row, folder)
    assert choice and choice.rate == min(losses, key=lambda rate: losses[rate])
    assert choice.tried == pytest.approx(losses)
    others = [cell for rate, cells in row.candidates.items() if rate != choice.rate for cell in cells]
    shared = {cell.name for row in study.rows["Sources"] for cell in row.cells}
    assert all((folder.state(cell, "evaluate") is not None) == (cell.name in shared) for cell in others)


def poison(folder: Folder) -> None:
    """Sets every score of a target language to 0 for the chosen cells, and to 1 for the others."""
    for path in folder.root.rglob("predictions.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            if row["language"] != "en":
                row["scores"] = {name: float(path.parent.name.endswith("0")) for name in row["scores"]}
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for path in folder.root.rglob("report.json"):
        values = json.loads(path.read_text())
        for task in values["tasks"].values():
            for code, figures in task["languages"].items():
                if code != "en":
                    figures |= dict.fromkeys(task["metrics"], 0.123)
            task["mean_others"] = task["gap"] = dict.fromkeys(task["metrics"], 0.123)
        path.write_text(json.dumps(values))


def test_target_languages_do_not_choose_the_learning_rate(done: tuple[Plan, Folder], tmp_path: Path):
    study, folder = done[0], copied(done, tmp_path)
    before = choose(study.rows["Methods"][1], folder)
    poison(folder)
    assert choose(study.rows["Methods"][1], folder) == before
    for cell in study.rows["Methods"][1].candidates[before.rate if before else None]:  # but the training language does
        path = folder.run(cell) / "metrics.jsonl"
        path.write_text(path.read_text() + json.dumps({"step": 3, "held_out_loss": 99.0}) + "\n")
    after = choose(study.rows["Methods"][1], folder)
    assert before and after and after.rate != before.rate


@pytest.mark.slow
def test_a_choice_by_score_evaluates_the_training_language_alone(model: Path, tmp_path: Path, no_pictures: None):
    study, folder = planned(model, select="score"), Folder(tmp_path / "study", mesh="1x1")
    command.run(study, folder, quiet=True)
    row = study.rows["Methods"][1]
    for cell in row.cells:
        assert {key[0] for key in scores(folder.run(cell) / "selection")} == {"en"}
    means = {
        rate: fmean(fmean(scores(folder.run(cell) / "selection").values()) for cell in cells)
        for rate, cells in row.candidates.items()
    }
    before = choose(row, folder)
    assert before and before.rate == max(means, key=lambda rate: means[rate]) and before.tried == pytest.approx(means)
    poison(folder)
    assert choose(row, folder) == before


def test_a_done_study_trains_nothing_and_writes_the_same_files(done: tuple[Plan, Folder], tmp_path: Path, monkeypatch):
    study, folder = done[0], copied(done, tmp_path)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("done again")

    monkeypatch.setattr(working, "train", refuse)
    monkeypatch.setattr(working, "evaluate", refuse)
    files = {
        path.name: path.read_bytes() for path in done[1].root.iterdir() if path.is_file() and path.name != "log.txt"
    }
    for name in files:
        if name != "specification.json":
            (folder.root / name).unlink()
    command.run(study, folder, quiet=True)
    assert {name: (folder.root / name).read_bytes() for name in files} == files
    assert {
        "study.json",
        "study.md",
        "study.csv",
        "study.tex",
        "sources-babel-choice.png",
        "sources-babel-choice.svg",
    } <= set(files)
    texts = "".join(files[f"study.{kind}"].decode() for kind in ("json", "md", "csv", "tex"))
    assert str(tmp_path) not in texts and str(done[1].root) not in texts and "/tmp" not in texts


def test_tables_say_what_they_show(done: tuple[Plan, Folder]):
    _, folder = done
    text = (folder.root / "study.md").read_text()
    assert "| lora | 1,920 |" in text and "0.00192M: equal" in text
    assert "learning rate by held-out loss of 0.001:" in text and "100.1" in text and "outside" in text
    assert "Small \\& \\<quick\\>." in text
    matrix = next(
        part for part in text.split("**babel-choice: ") if part.startswith("lora, points against the baseline")
    )
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in matrix.splitlines() if line.startswith("| ")]
    rows = result(folder)["tables"]["Sources"]["rows"]
    value = {
        (row["labels"]["method"], row["labels"]["language"]): row["tasks"]["babel-choice"]["languages"] for row in rows
    }
    gain = value["lora", "en"]["de"]["value"] - value["none", "en"]["de"]["value"]
    assert gain != 0
    assert lines[0] == ["trained in", "de", "en", "ru", "sw", "toward", "from"]
    assert lines[2][:2] == ["en", f"{100 * gain:+.1f}"]
    tex = (folder.root / "study.tex").read_text()
    assert tex.count(r"\toprule") == tex.count(r"\bottomrule") == tex.count(r"\end{tabular}") == 6


def flags(line: str) -> tuple[list[str], list[str]]:
    train, evaluation = line.split("  ")[-1].split(" && ")
    return train.split()[3:], evaluation.split()[3:]


def test_the_listed_commands_make_the_cells(done: tuple[Plan, Folder], monkeypatch):
    study, folder = done
    lines = list(listing(study, folder))
    for cell, line in zip(study.cells(), lines, strict=True):
        train, evaluation = flags(line)
        parsed = tyro.cli(TrainCommand, args=train, default=TrainCommand(RunConfig()))
        assert parsed.config == folder.config(cell) and parsed.output == folder.run(cell)
        settings = tyro.cli(EvaluationCommand, args=evaluation)
        own = folder.evaluation(cell)
        expected = replace(cell.evaluation, mesh="1x1", output=None if own == folder.run(cell) else own)
        assert settings.settings == expected and Path(settings.run) == folder.run(cell)
    assert {line.split()[0] for line in lines} == {"evaluated", "trained"}  # not chosen


def test_a_loss_that_is_not_finite_does_not_end_the_study(model: Path, tmp_path: Path, no_pictures: None, capsys):
    study = planned(model, SPECIFICATION.replace("1e-3, 1e-1", "1e-3, 1e9").replace("[0, 1]", "0"))
    folder = Folder(tmp_path / "study", mesh="1x1")
    command.run(study, folder, quiet=True)
    row = result(folder)["tables"]["Methods"]["rows"][1]
    assert row["rate"] == 1e-3 and row["tried"]["1e+09"] is None and "babel-choice" in row["tasks"]
    printed = capsys.readouterr().out
    assert "failed: the loss is nan" in printed and "0.001: " in printed and "1e+09: failed; chosen 0.001" in printed
    assert str(tmp_path) not in (folder.root / "study.json").read_text()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("RESOURCE_EXHAUSTED: no room"),
        pytest.param(InputError("the loss is not finite"), marks=pytest.mark.slow),
    ],
)
def test_a_failure_is_recorded_and_retried(model: Path, tmp_path: Path, monkeypatch, capsys, no_pictures, error):
    study, folder = planned(model), Folder(tmp_path / "study", mesh="1x1")
    trained, train = [], working.train

    def fail(config: RunConfig, output: Path, **options: Any) -> Path:
        trained.append(config)
        if config.method == "lora" and config.lr == 1e-1:
            raise error
        return train(config, output, **options)

    monkeypatch.setattr(working, "train", fail)
    assert command.run(study, folder, quiet=True) == 2
    printed = capsys.readouterr().out
    assert f"failed: {error}" in printed and "2 of 5 cells failed; --retry runs them again" in printed
    row = result(folder)["tables"]["Methods"]["rows"][1]
    assert row["tried"]["0.1"] is None and row["rate"] == 1e-3 and "babel-choice" in row["tasks"]
    trained.clear()
    command.run(study, folder, quiet=True)
    assert not trained
    monkeypatch.setattr(working, "train", train)
    assert command.run(study, folder, retry=True, quiet=True) == 0
    assert result(folder)["tables"]["Methods"]["rows"][1]["tried"]["0.1"] is not None


def test_a_full_disk_ends_the_study_and_fails_no_cell(model: Path, tmp_path: Path, monkeypatch):
    study, folder = planned(model), Folder(tmp_path / "study", mesh="1x1")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(working, "train", full)
        with pytest.raises(InputError, match=r"could not be written to \(No space left on device\); what was saved"):
            command.run(study, folder, quiet=True)
    assert not list((folder.root / "cells").glob("*.json"))


def test_another_study_is_refused_and_nothing_changes(done: tuple[Plan, Folder], model: Path, tmp_path: Path):
    folder = copied(done, tmp_path)
    other = planned(model, (SPECIFICATION + KINDS).replace("steps = 3", "steps = 4"))
    with pytest.raises(InputError, match=r"another study: its tables\[0\].grids\[0\].run.steps is \[3\], given \[4\]"):
        command.run(other, folder, quiet=True)


def test_other_files_are_refused(model: Path, tmp_path: Path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other files and is not a study; give a new directory"):
        command.run(planned(model), Folder(tmp_path), quiet=True)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_runs_that_the_listed_commands_made_are_taken(model: Path, tmp_path: Path):
    study, folder = planned(model), Folder(tmp_path / "study")
    for cell in study.cells():
        folder.run(cell).mkdir(parents=True, exist_ok=True)
    folder.open(study)
    assert (folder.root / "specification.json").is_file()


def test_a_cell_with_another_run_is_refused(done: tuple[Plan, Folder], tmp_path: Path):
    study, folder = done[0], copied(done, tmp_path)
    path = folder.run(study.cells()[1]) / "run.json"
    values = json.loads(path.read_text())
    values["config"]["weight_decay"] = 0.5
    path.write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"holds another run: its weight-decay is 0\.5, given 0\.02"):
        command.run(study, folder, quiet=True)


def run_command(arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", ["study", *arguments])
    with pytest.raises(SystemExit) as ended:
        terminal.run(command.main)
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("banana", "banana is not a specification; give a TOML file, or one of babel, few-shot, first"),
        ("babel --steps 0", "--steps is 0; expected at least 1"),
        ("babel --limit 0", "--limit is 0; expected at least 1"),
        ("babel --seeds one", "--seeds one; expected whole numbers, comma-separated, such as 0,1,2"),
        ("babel --only Banana", "--only Banana: there is no such table; expected one of Methods"),
        ("paper --models /none/a,/none/a/", "have the same name, a; rename one of the directories"),
    ],
)
def test_bad_commands_are_refused_in_one_line(arguments: str, message: str, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_command(arguments.split(), monkeypatch) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_lines_groups_and_two_evaluations_of_a_run(model: Path, tmp_path: Path):
    """The other kinds of tables. The second temperature is another evaluation of the same run."""
    text = SPECIFICATION[: SPECIFICATION.index("[[table]]")] + MORE
    study, folder = planned(model, text), Folder(tmp_path / "study", mesh="1x1")
    command.run(study, folder, quiet=True)
    found = result(folder)["tables"]
    cold, warm = (row["cells"][0] for row in found["Temperature"]["rows"])
    assert warm.startswith(f"{cold}/evaluation-")
    hows = [small.predictions(folder.root / name)[0]["how"] for name in (cold, warm)]
    assert "temperature 0.7" in hows[1] and "temperature 0.7" not in hows[0]
    figures = found["Scripts"]["rows"][1]["tasks"]["babel-choice"]
    assert set(figures["languages"]) == {"en", "ru", "sw"}  # the table shows no German
    assert figures["means"]["script Cyrl"]["value"] == figures["languages"]["ru"]["value"]
    markdown = (folder.root / "study.md").read_text()
    assert "| method | Cyrl | Latn |" in markdown and "| lora | 8 |" in markdown
    for name in ("ranks-babel-choice", "temperature-babel-qa", "scripts-babel-choice"):
        assert (folder.root / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert b"</svg>" in (folder.root / f"{name}.svg").read_bytes()


# The tasks of the embedded world in the shape of the benchmarks.
SHAPES = {"squad": "babel-qa", "tydiqa": "babel-qa", "xlsum": "babel-qa", "flores": "babel-qa", "mnli": "babel-nli"}
SHAPES |= {"xnli": "babel-nli", "belebele-mix": "babel-choice", "xcopa": "babel-choice", "gsm8k": "babel-math"}


def small_grid(grid: Grid) -> Grid:
    """Two values of each axis, on tasks of the embedded world."""
    run = {name: values[:2] for name, values in grid.run.items() if name not in ("split", "epochs", "model", "limit")}
    run |= {name: grid.run[name] for name in ("method",) if name in grid.run}
    run["task"] = tuple(dict.fromkeys(SHAPES.get(task, task) for task in grid.run["task"]))
    run |= {"language": ("en", "de")} if len(grid.run.get("language", ())) > 1 else {"language": ("en",)}
    run |= {name: ("top:1", "all") for name in grid.run if name == "prefix.layers"}
    run |= {"batch": (4,), "limit": (48,), "max_length": (256,), "steps": (2,)}
    evaluation = {name: values[:2] for name, values in grid.evaluation.items() if name not in ("task", "languages")}
    return Grid(run, evaluation | {"limit": (2,), "batch": (8,), "languages": ("en,de,sw,ru",)})


@pytest.mark.slow
@pytest.mark.parametrize("name", specification.names())
def test_the_specifications_of_the_package_in_small(name: str, model: Path, tmp_path: Path):
    """On the embedded world with a tiny model: every cell is done, and every table and picture is drawn."""
    read = specification.read(name)
    tables = tuple(
        replace(table, grids=tuple(map(small_grid, table.grids)), known=(), languages=None) for table in read.tables
    )
    study = plan(replace(read, tables=tables).smaller([str(model)]))
    folder = Folder(tmp_path / "study", mesh="1x1")
    command.run(study, folder, quiet=True)
    for table in study.specification.tables:
        if table.kind == "parameters":
            continue
        rows = result(folder)["tables"][table.name]["rows"]
        assert rows and all(row["tasks"] and not row["failed"] for row in rows)
        assert list(folder.root.glob("".join(x if x.isalnum() else "-" for x in table.name.lower()) + "-*.svg"))


def test_a_published_figure_is_within_or_outside_an_interval():
    interval = Estimate(value=0.5, low=0.4, high=0.6)
    assert verdict(Known({}, 40.0), interval) == verdict(Known({}, 60.0), interval) == "within"
    assert verdict(Known({}, 39.9), interval) == "outside"
    assert verdict(Known({}, 39.9), Estimate(value=0.5, low=None, high=None)) == ""
