"""LoRA with a rank, a scale or a choice of layers per module: read with PEFT's numbers, and written back with them."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import theirs
from reference import hugging_face as hf
from safetensors.numpy import load_file

from jaxprefix.models.adapters import LoRA
from jaxprefix.peft import __main__ as command
from jaxprefix.peft.convert import from_peft
from jaxprefix.peft.files import read_adapter
from jaxprefix.runs.saved import load_run

pytestmark = [
    pytest.mark.filterwarnings(theirs.IGNORED),
    pytest.mark.filterwarnings("ignore:The following rank_pattern keys did not match:RuntimeWarning"),  # "v_pro"
]

LORA = {"r": 3, "lora_alpha": 5, "target_modules": ["q_proj", "v_proj", "down_proj"], "init_lora_weights": False}
# A key is a pattern for the end of a module's path; the first that matches counts.
RANKS = {r"layers\.1\.self_attn\.q_proj": 5, "q_proj": 2, r"^model\.layers\.0\..*down_proj": 1, "v_pro": 9}
ALPHAS = {"v_proj": 9, r".*[02]\.mlp\.\w+": 2.5}
CASES: dict[str, tuple[dict[str, Any], int]] = {  # settings, and the largest rank
    "ranks": ({"rank_pattern": RANKS}, 5),
    "alphas": ({"alpha_pattern": ALPHAS}, 3),
    "both": ({"rank_pattern": RANKS, "alpha_pattern": ALPHAS}, 5),
    "both, rank-stabilized": ({"rank_pattern": RANKS, "alpha_pattern": ALPHAS, "use_rslora": True}, 5),
    "a lower rank everywhere": ({"rank_pattern": {".*": 2}, "alpha_pattern": {".*": 4}}, 2),
    "layers": ({"layers_to_transform": [0, 2]}, 3),
    "one layer": ({"layers_to_transform": 1, "layers_pattern": "layers"}, 3),
    "layers of a pattern": ({"layers_to_transform": [2], "layers_pattern": ["h", "l.yers"], "rank_pattern": RANKS}, 3),
    "a pattern of one layer's modules": ({"target_modules": r".*\.1\.(mlp\.up|self_attn\.o)_proj"}, 3),
    "names of single modules": ({"target_modules": ["0.self_attn.k_proj", "model.layers.2.mlp.gate_proj"]}, 3),
    "all but some": ({"target_modules": "all-linear", "exclude_modules": ["1.mlp.up_proj", "self_attn.v_proj"]}, 3),
    "biases that are not there": ({"bias": "all"}, 3),
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> hf.Pair:
    return hf.make(hf.KINDS["grouped heads"], tmp_path_factory.mktemp("model"))


def configuration(name: str) -> peft.LoraConfig:
    return peft.LoraConfig(task_type="CAUSAL_LM", **(LORA | CASES[name][0]))


@pytest.mark.parametrize("name", CASES)
def test_the_logits_are_pefts_there_and_back(pair: hf.Pair, tmp_path: Path, name: str):
    expected = theirs.their_logits(theirs.save(pair, configuration(name), tmp_path / "peft"))
    settings, tensors, _ = read_adapter(tmp_path / "peft")
    adapter, params = from_peft(settings, tensors, pair.config)
    assert isinstance(adapter, LoRA) and adapter.rank == CASES[name][1]
    ours = theirs.our_logits(pair.config, pair.frozen, adapter, params)
    assert np.abs(expected - hf.torch_logits(pair.torch, theirs.ROWS)[theirs.ROWS.mask]).max() > 0.1
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)
    again = theirs.load(pair, theirs.export(pair, adapter, params, tmp_path / "again"))
    np.testing.assert_allclose(theirs.their_logits(again), expected, rtol=0, atol=1e-5)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["peft", *map(str, arguments)])
    command.main()


def test_the_commands_say_what_was_rewritten(
    pair: hf.Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """And the card, which does not claim a training."""
    monkeypatch.setattr("jaxprefix.peft.exchange.open_base", lambda *_: Base)
    monkeypatch.setattr("jaxprefix.runs.loaded.open_base", lambda *_: Base)

    class Base:
        config, directory, name, fingerprint, path = pair.config, pair.directory, "tiny", "hash", None

        @classmethod
        def with_chat_date(cls, day: str | None) -> type["Base"]:
            return cls

    changes = {"layers_to_transform": [0, 2], "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 9}}
    theirs.save(pair, peft.LoraConfig(task_type="CAUSAL_LM", **(LORA | changes)), tmp_path / "peft")
    run(monkeypatch, "import", tmp_path / "peft", tmp_path / "run", "--model", pair.directory)
    assert (
        "note: 2 modules of a smaller rank were padded with zeros to rank 3; 3 modules without LoRA were filled with "
        "zeros; the scales, which differ, were folded into B: the same function as PEFT's\n"
    ) in capsys.readouterr().out
    assert load_run(tmp_path / "run").config.lora == LoRA(3, 3.0, "q,v,down")
    run(monkeypatch, "export", tmp_path / "run", tmp_path / "out")
    said = "every module has rank 3; 5 of 9 are padded with zeros"
    assert f"note: {said}\n" in capsys.readouterr().out
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"E{said[1:]}." in card and "How it was trained is not recorded." in card and "jaxprefix trained" not in card
    settings = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (settings["r"], settings["lora_alpha"]) == (3, 3) and "rank_pattern" not in settings
    tensors = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert len(tensors) == 18 and {min(tensor.shape) for tensor in tensors.values()} == {3}
