"""A study's needs from config.json alone: one compilation a method, and the rest by formula."""

import json
from pathlib import Path
from typing import Any

import pytest
import small

from jaxprefix.models.config import DecoderConfig
from jaxprefix.study import __main__ as command
from jaxprefix.study import dry_run as module
from jaxprefix.study.dry_run import _costs, dry_run
from jaxprefix.study.plan import Plan, plan
from jaxprefix.study.specification import parse
from jaxprefix.train.dry_run import needs
from jaxprefix.train.dry_run.chips import CHIPS
from jaxprefix.train.dry_run.limits import SHARE

SPECIFICATION = """
[run]
task = "babel-nli"
max_length = 64
[[table]]
name = "Two"
[[table.grid]]
run = { method = "lora", lora.rank = [4, 8], batch = 8, steps = 10 }
[[table.grid]]
run = { method = ["none", "lora"], batch = 16, steps = 10 }
"""


@pytest.fixture
def study(tmp_path: Path) -> Plan:
    """The directory of the model has only its config.json."""
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "config.json").write_text(json.dumps(small.SIZES))
    return plan(parse(SPECIFICATION.encode(), "two").smaller([str(tmp_path / "tiny")]))


def test_one_step_is_compiled_for_each_method(study: Plan, monkeypatch: pytest.MonkeyPatch, capsys):
    compiled = []

    def count(config: Any, sizes: Any) -> Any:
        compiled.append(config.method)
        return needs(config, sizes)

    monkeypatch.setattr(module, "needs", count)
    dry_run(study, "H100")
    printed = capsys.readouterr().out
    assert compiled == ["lora"]
    assert "1,920 to 3,840" in printed and "4 cells, at most 0.0 hours at 30% of the 989 TFLOP/s" in printed


def test_the_formula_agrees_with_a_compilation_of_each_cell(study: Plan):
    """Of the training FLOPs within a tenth, and of the bytes within a third."""
    sizes, compiled = DecoderConfig.parse(small.SIZES), dict[str, Any]()
    cells = [cell for cell in study.cells() if cell.config.method == "lora"]
    for cell in cells:
        found = _costs(cell, sizes, compiled)
        step = needs(cell.config, sizes)
        tokens = 10 * cell.config.batch * 64
        assert found.steps * found.step.flops == pytest.approx(step.flops / step.tokens * tokens, rel=0.1)
        assert found.bytes == pytest.approx(step.temporary, rel=1 / 3)
        # A step reads the weights twice, and reads and writes LoRA and two moments; on a v5e the products bind.
        reads = 2 * 2 * (sizes.layers * layer(sizes) + sizes.vocabulary_size * sizes.hidden_size)
        assert found.step.bytes == pytest.approx(reads + 2 * 3 * 4 * found.trainable, rel=0.1)
        assert found.training_hours(CHIPS["v5e"]) == pytest.approx(10 * found.step.flops / 197e12 / SHARE / 3600)
    assert len(cells) == 3 and len(compiled) == 1


def layer(sizes: DecoderConfig) -> int:
    heads = (2 * sizes.heads + 2 * sizes.kv_heads) * sizes.head_size
    return sizes.hidden_size * (heads + 3 * sizes.intermediate_size)


def test_the_paper_is_listed_from_config_json_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    model = tmp_path / "Llama-3.1-8B"
    model.mkdir()
    (model / "config.json").write_text("{}")  # it is not even read
    monkeypatch.setattr(
        "sys.argv", ["study", "paper", "--model", str(model), "--list", "--output", str(tmp_path / "out")]
    )
    command.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 100 and all(line.startswith(f"missing  {tmp_path / 'out'}/") for line in lines)
    assert all(f"--model {model} " in line and " && python -m jaxprefix.evaluation " in line for line in lines)
    assert not (tmp_path / "out").exists()
