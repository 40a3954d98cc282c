"""Runs docs/new_method.md: its file becomes a method, with settings, in a sum, and with rows of their own."""

import re
import shutil
import subprocess
import sys
from dataclasses import make_dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from jaxprefix.models.adapters import METHODS, Adapter, LoRA, Sum
from jaxprefix.peft.convert import to_peft
from jaxprefix.runs import config as configuration

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "new_method.md").read_text(encoding="utf-8")


@pytest.fixture
def method() -> Any:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    namespace: dict[str, Any] = {"__name__": "layer_scale"}
    exec(compile(code, "docs/new_method.md", "exec"), namespace)
    return namespace["LayerScale"]


def test_it_starts_as_the_base_and_scales_what_is_added(method: Any):
    adapter, base = method(), tiny.logits()
    assert isinstance(adapter, Adapter)
    assert np.array_equal(tiny.adapted(adapter, tiny.fresh(adapter)), base)
    layers = dict(tiny.FROZEN["layers"])
    for name in ("o_proj", "down_proj"):
        layers[name] = layers[name] * 0.5
    halved = tiny.logits(frozen=tiny.FROZEN | {"layers": layers})
    found = tiny.adapted(method(0.5), tiny.fresh(method(0.5)))
    np.testing.assert_allclose(found, halved, rtol=0, atol=1e-5)
    assert np.abs(halved - base).max() > 0.1


def test_each_row_has_its_own_adapter(method: Any):
    adapter = Sum((("layer-scale", method()), ("lora", LoRA(2))))
    several = tiny.several(adapter, 3)
    found = tiny.adapted(adapter, tiny.together(several), adapter_ids=jnp.array([2, 0]))
    for row, chosen in enumerate((2, 0)):
        alone = tiny.adapted(adapter, several[chosen])[row]
        np.testing.assert_allclose(found[row][tiny.REAL[row]], alone[tiny.REAL[row]], rtol=0, atol=5e-5)


def test_once_listed_it_is_a_method_of_a_run(method: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(configuration, "METHODS", (*METHODS, method))
    monkeypatch.setitem(configuration.METHOD_SETTINGS, "layer_scale", method)
    fields = [("layer_scale", method, method(start=0.5))]
    config = make_dataclass("Config", fields, bases=(configuration.RunConfig,), frozen=True)(method="layer-scale+lora")
    assert config.adapter == Sum((("layer-scale", method(start=0.5)), ("lora", LoRA())))
    assert config.learning_rates["layer-scale"] == 1e-2 and config.as_json()["layer_scale"] == {"start": 0.5}
    with pytest.raises(ValueError, match="method layer-scale: PEFT has no type for it; prefix"):
        to_peft(method(), {}, tiny.CONFIG, lambda _: [])


def test_its_name_is_added_as_the_page_says(tmp_path: Path):
    """In a copy of the package with the page's file and lines, the command line's configuration has the method."""
    package = tmp_path / "jaxprefix"
    shutil.copytree(ROOT / "jaxprefix", package, ignore=shutil.ignore_patterns("__pycache__", "model"))
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (package / "models/adapters/layer_scale.py").write_text(code, encoding="utf-8")
    first, second = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    imported, public, listed = (line.split("  #")[0] for line in first.splitlines() if line)
    used, setting = (line.split("  #")[0] for line in second.splitlines() if line)

    def add(file: str, line: str, after: str) -> None:
        text = (package / file).read_text(encoding="utf-8")
        assert text.count(after) == 1, after
        (package / file).write_text(text.replace(after, f"{after}{line}\n"), encoding="utf-8")

    add("models/adapters/__init__.py", imported, "import IA3\n")
    add("models/adapters/__init__.py", public, '    "FullFineTuning",\n')
    add("models/adapters/__init__.py", listed, "    IA3,\n    FullFineTuning,\n")
    add("runs/config.py", used, "    FullFineTuning,\n")
    add("runs/config.py", setting, "field(default_factory=FullFineTuning)\n")
    code = "from jaxprefix.runs.config import RunConfig; print(RunConfig(method='layer-scale+lora').adapter)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "LayerScale(start=1.0)" in done.stdout


def test_what_the_page_names_is_there():
    for name in re.findall(r"`((?:jaxprefix|tests)/[\w/.]+)`", PAGE):
        assert name.endswith("layer_scale.py") or (ROOT / name).exists(), name
    for name in ("full.py", "prefix.py", "lora.py", "soft_prompt.py"):
        assert f"`{name}`" in PAGE and (ROOT / "jaxprefix/models/adapters" / name).is_file()
