"""What opening a base tells the user."""

from pathlib import Path

import jax
import numpy as np
import pytest
import small

from jaxprefix.models import adapter_init
from jaxprefix.models.adapters import LoRA
from jaxprefix.runs.base_model import open_base
from jaxprefix.runs.config import RunConfig
from jaxprefix.runs.directory import read_run
from jaxprefix.runs.saved import load_run, save_run
from jaxprefix.train import __main__ as train_command


def test_what_config_json_has_without_effect_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    open_base(str(small.write_model(tmp_path, is_llama_config=True, bias=False)))
    out, err = capsys.readouterr()
    path = tmp_path / "config.json"
    line = f"note: {path}: ignored, as transformers' LlamaForCausalLM does not read them: bias, is_llama_config\n"
    assert (out, err) == ("", line)


def test_nothing_is_said_of_an_ordinary_base(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    open_base(str(small.write_model(tmp_path)))
    assert capsys.readouterr() == ("", "")


def test_a_run_finds_its_base_from_any_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """run.json has the typed name, and the absolute path beside it; a model that has moved is found by its name."""
    small.write_model(tmp_path / "here" / "models" / "tiny")
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    base = open_base("models/tiny")
    adapter = LoRA(2, 4.0, "q")
    params = adapter_init.abstract_params(adapter, base.config)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), params)
    monkeypatch.chdir(tmp_path)  # before it is saved
    save_run(tmp_path / "run", RunConfig(model="models/tiny", method="lora", lora=adapter), base, zeros, "en")
    values = read_run(tmp_path / "run")
    assert (values["config"]["model"], values["model_path"]) == ("models/tiny", str(tmp_path / "here/models/tiny"))

    monkeypatch.chdir(tmp_path / "there")
    found = load_run(tmp_path / "run").base
    assert (found.name, found.directory, found.path) == (
        "models/tiny",
        Path(values["model_path"]),
        values["model_path"],
    )
    command = train_command._config_of(tmp_path / "run")
    assert command.model == values["model_path"]

    (tmp_path / "here" / "models").rename(tmp_path / "there" / "models")
    assert load_run(tmp_path / "run").base.directory == Path("models/tiny")
    assert train_command._config_of(tmp_path / "run").model == "models/tiny"


def test_a_hub_id_and_the_embedded_model_have_no_path():
    assert open_base(None).path is None
