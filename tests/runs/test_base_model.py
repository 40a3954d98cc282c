"""What opening a base tells the user."""

from pathlib import Path

import pytest
import small

from jaxprefix.runs.base_model import open_base


def test_what_config_json_has_without_effect_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    open_base(str(small.write_model(tmp_path, is_llama_config=True, bias=False)))
    out, err = capsys.readouterr()
    path = tmp_path / "config.json"
    line = f"note: {path}: ignored, as transformers' LlamaForCausalLM does not read them: bias, is_llama_config\n"
    assert (out, err) == ("", line)


def test_nothing_is_said_of_an_ordinary_base(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    open_base(str(small.write_model(tmp_path)))
    assert capsys.readouterr() == ("", "")
