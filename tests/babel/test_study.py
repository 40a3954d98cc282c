"""The study: its figures are those of the runs' reports, and it resumes after a stop."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from jaxprefix.babel import __main__ as babel
from jaxprefix.babel import study as module
from jaxprefix.babel.study import Study, study
from jaxprefix.babel.study_picture import draw
from jaxprefix.errors import InputError
from jaxprefix.evaluation.plots import canvas
from jaxprefix.io import terminal
from jaxprefix.models.adapters import METHODS

SMALL = {
    "methods": "lora",
    "tasks": "babel-nli",
    "seeds": "0,1",
    "languages": "en,de,sw",
    "limit": 4,
    "steps": 2,
}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    output = tmp_path_factory.mktemp("study") / "here"
    return output, study(Study(output, **SMALL))


def test_figures_are_those_of_the_reports(done: tuple[Path, dict]):
    output, found = done
    assert list(found) == ["babel-nli"] and list(found["babel-nli"]) == ["none", "lora"]
    for method, row in found["babel-nli"].items():
        places = [output / "none"] * 2 if method == "none" else [output / "babel-nli" / f"{method}-{n}" for n in (0, 1)]
        reports = [json.loads((place / "report.json").read_text())["tasks"]["babel-nli"] for place in places]
        scores = [{code: each["accuracy"] for code, each in report["languages"].items()} for report in reports]
        others = [(each["de"] + each["sw"]) / 2 for each in scores]
        assert row["en"] == [each["en"] for each in scores]
        assert row["others"] == pytest.approx(others)
        assert row["gap"] == pytest.approx([each["en"] - other for each, other in zip(scores, others, strict=True)])
        assert (row["class 5"], row["class 2"]) == ([each["de"] for each in scores], [each["sw"] for each in scores])
    written = json.loads((output / "study.json").read_text())
    assert written["tasks"] == found and written["chance"]["babel-nli"] == pytest.approx(1 / 3)
    assert (output / "study.png").read_bytes().startswith(b"\x89PNG")
    en = np.array(found["babel-nli"]["lora"]["en"])
    spread = f"{100 * en.mean():.1f}" + (f" ± {100 * en.std(ddof=1):.1f}" if len(set(en)) > 1 else "")
    assert f"| lora | {spread} |" in (output / "study.md").read_text(encoding="utf-8")


def test_finished_runs_are_not_repeated(done: tuple[Path, dict], monkeypatch, capsys):
    output, found = done

    def refuse(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(module, "train", refuse)
    assert study(Study(output, **SMALL)) == found
    assert capsys.readouterr().out.count("already done") == 3


@pytest.mark.slow
def test_a_stopped_study_is_resumed(done: tuple[Path, dict], capsys):
    """One of two runs was never started, and one was not evaluated."""
    output, found = done
    shutil.rmtree(output / "babel-nli" / "lora-1")
    for name in ("report.json", "predictions.jsonl"):
        (output / "babel-nli" / "lora-0" / name).unlink()
    assert study(Study(output, **SMALL)) == found
    printed = capsys.readouterr().out
    line = r"(?m)^\d of 3: .*lora-[01]: babel-nli en [\d.]+, others [\d.]+ \(\d+ s\)$"
    assert printed.count("already done") == 1 and len(re.findall(line, printed)) == 2


def test_a_study_that_stopped_in_its_first_run_is_resumed(tmp_path: Path):
    (tmp_path / "log.txt").write_text("")
    (tmp_path / "none").mkdir()
    assert list(study(Study(tmp_path, **SMALL | {"methods": "none", "languages": "de", "limit": 1}))) == ["babel-nli"]


def test_runs_of_another_model_are_not_mixed(done: tuple[Path, dict], tmp_path: Path):
    output = Path(shutil.copytree(done[0], tmp_path / "study"))
    for path in output.glob("**/run.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"base": "0" * 16}))
    with pytest.raises(InputError, match=r"holds another run: its base model has the hash '0{16}', given"):
        study(Study(output, **SMALL))


@pytest.mark.parametrize("command", ["study", "pretrain"])
def test_existing_files_are_not_overwritten(command: str, tmp_path: Path, monkeypatch, capsys):
    (tmp_path / "study.md").write_text("mine")
    monkeypatch.setattr("sys.argv", ["babel", command, "--output", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        terminal.run(babel.main)
    error = capsys.readouterr().err
    assert ended.value.code == 2 and f"{tmp_path} " in error and error.count("\n") == 1
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("study --tasks xnli", "--tasks 'xnli' is unknown; expected babel-qa, babel-nli, babel-choice, babel-math"),
        ("study --methods prefixes", "--method 'prefixes': 'prefixes' is unknown"),
        ("study --seeds one", "--seeds 'one'; expected whole numbers, comma-separated, such as 0,1,2"),
        ("study --languages xx", "task babel-qa has no language 'xx'; it has en, ar"),
        ("study --limit 0", "--limit is 0; expected at least 1"),
        ("study --steps 0", "--steps is 0; expected more than 0"),
        ("learn", "'learn' is not a command of python -m jaxprefix.babel; expected pretrain or study"),
        ("pretrain --skew 0", "the skew is 0.0; expected a number above 0"),
    ],
)
def test_invalid_settings_are_refused_before_anything_is_written(
    arguments: str, message: str, tmp_path: Path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["babel", *arguments.split()])
    with pytest.raises(SystemExit) as ended:
        terminal.run(babel.main)
    error = capsys.readouterr().err
    assert ended.value.code == 2 and message in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_legend_of_all_methods_fits_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    figures = []
    monkeypatch.setattr(canvas, "save", lambda figure, path: figures.append(figure))
    methods = ("none", *(kind.method for kind in METHODS if kind.method != "none"))
    draw({"babel-qa": {method: {"en": [0.5]} for method in methods}}, {"babel-qa": 0.25}, tmp_path / "study.png")
    (figure,) = figures
    FigureCanvasAgg(figure).draw()
    assert len(figure.legends[0].get_texts()) == len(methods) + 1  # and chance
    assert all(text.get_window_extent().x1 <= figure.bbox.width for text in figure.legends[0].get_texts())
