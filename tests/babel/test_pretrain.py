"""Pretraining: the same seed gives the same model, also after a stop, and the losses of the shipped model are
reproduced.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import small
from safetensors.numpy import load_file

from jaxprefix.babel import __main__ as babel
from jaxprefix.babel import pretrain as module
from jaxprefix.babel.pretrain import Pretrain, pretrain
from jaxprefix.errors import InputError
from jaxprefix.io import terminal
from jaxprefix.runs.base_model import EMBEDDED, open_base
from jaxprefix.tasks.babel import text
from jaxprefix.train import metrics

SIZES = {"vocab_size": 1024, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 4}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONFIG", module.CONFIG | SIZES)
    monkeypatch.setattr(module, "TOKENIZER_DOCUMENTS", 500)
    monkeypatch.setattr(module, "SAVE_EVERY", 2)
    monkeypatch.setattr(text, "ROWS", 300)


def settings(place: Path, **changes) -> Pretrain:
    values = {"output": place / "model", "work": place / "run", "steps": 6, "batch": 8, "quiet": True}
    return Pretrain(**(values | changes))


@pytest.mark.slow
def test_the_same_settings_give_the_same_model_also_after_a_stop(tiny: None, tmp_path: Path):
    whole, stopped = settings(tmp_path / "whole"), settings(tmp_path / "stopped")
    pretrain(whole)
    written = metrics.MetricsLogger.write

    def write(self: metrics.MetricsLogger, row: dict) -> None:
        written(self, row)
        if row["step"] >= 4:
            raise small.Stopped

    with pytest.MonkeyPatch.context() as patch, pytest.raises(small.Stopped):
        patch.setattr(metrics.MetricsLogger, "write", write)
        pretrain(stopped)
    assert not stopped.output.exists()
    pretrain(stopped)
    for name in ("model.safetensors", "tokenizer.json", "config.json", "tokenizer_config.json"):
        assert (whole.output / name).read_bytes() == (stopped.output / name).read_bytes(), name
    assert small.metrics(whole.work) == small.metrics(stopped.work)
    assert open_base(str(whole.output)).config.layers == 2
    with pytest.raises(InputError, match=r"holds another run: its split is 'skew=2\.0', given 'skew=1\.0'"):
        pretrain(settings(tmp_path / "whole", skew=1.0, output=tmp_path / "other"))
    assert {str(leaf.dtype) for leaf in load_file(whole.output / "model.safetensors").values()} == {"bfloat16"}


@pytest.mark.slow
def test_the_first_losses_of_the_shipped_model_are_reproduced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Takes two minutes, most of them for making and encoding the documents."""
    shipped = [json.loads(line) for line in (EMBEDDED / "pretraining.jsonl").read_text().splitlines()]
    expected = next(row["loss"] for row in shipped if row["step"] == 50 and "loss" in row)

    def write(self: metrics.MetricsLogger, row: dict) -> None:
        if row["step"] == 50:
            found.append(row["loss"])
            raise small.Stopped

    found: list[float] = []
    monkeypatch.setattr(metrics.MetricsLogger, "write", write)
    with pytest.raises(small.Stopped):
        pretrain(Pretrain(output=tmp_path / "model", work=tmp_path / "run", quiet=True))
    np.testing.assert_allclose(found, [expected], rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("learn", "'learn' is not a command of python -m jaxprefix.babel; expected pretrain"),
        ("pretrain --skew 0", "the skew is 0.0; expected a number above 0"),
    ],
)
def test_invalid_commands_are_refused_before_anything_is_written(
    arguments: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    assert run_command(arguments.split(), monkeypatch) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_existing_files_are_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    (tmp_path / "mine.md").write_text("mine")
    assert run_command(["pretrain", "--output", str(tmp_path)], monkeypatch) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path} " in error and error.count("\n") == 1
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def run_command(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", ["babel", *arguments])
    with pytest.raises(SystemExit) as ended:
        terminal.run(babel.main)
    return int(ended.value.code or 0)
