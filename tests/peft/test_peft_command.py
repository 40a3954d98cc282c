"""python -m jaxprefix.peft: what it exports is loaded by PEFT and transformers, what it imports is a run."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import ml_dtypes  # numpy's bfloat16
import numpy as np
import peft
import pytest
import small
import theirs
import yaml
from models.every import ALL_SEVEN
from reference import hugging_face as hf
from safetensors.numpy import load_file, save_file
from transformers import Gemma3ForCausalLM, LlamaForCausalLM

from jaxprefix import generate
from jaxprefix.errors import InputError
from jaxprefix.models import loading
from jaxprefix.models.adapters import IA3, Adapter, FullFineTuning, LoRA, PrefixTuning
from jaxprefix.peft import __main__ as command
from jaxprefix.runs.base_model import EMBEDDED, BaseModel, open_base
from jaxprefix.runs.config import RunConfig
from jaxprefix.runs.saved import load_run, save_run
from jaxprefix.train.loop import train

pytestmark = pytest.mark.filterwarnings(theirs.IGNORED)

SCALE = 5.0  # of the tiny model's weights: at 1 its logits are so small that wrong numbers would pass
ROWS = hf.rows("right", lengths=(12, 9, 12), vocabulary=512)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["peft", *map(str, arguments)])
    command.main()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return open_base(str(small.write_model(tmp_path_factory.mktemp("base") / "tiny", scale=SCALE)))


def frozen(base: BaseModel) -> Any:
    return loading.load(base.directory, base.config)


def write(directory: Path, base: BaseModel, method: str, adapter: Adapter, params: Any) -> Path:
    """A run that holds this adapter."""
    own: dict[str, Any] = {} if method == "full" else {method.replace("-", "_"): adapter}
    save_run(directory, RunConfig(model=str(base.directory), method=method, **own), base, params, "de,en")
    return directory


def lora_run(directory: Path, base: BaseModel) -> tuple[Path, LoRA, Any]:
    adapter = LoRA(3, 7.0, "q,k,v,o,gate,up,down")
    params = theirs.drawn(adapter, base.config)
    return write(directory, base, "lora", adapter, params), adapter, params


def transformers_logits(directory: Path) -> np.ndarray:
    return theirs.their_logits(hf.read(LlamaForCausalLM, directory), ROWS)


def plain_logits(base: BaseModel) -> np.ndarray:
    return transformers_logits(base.directory)


@pytest.mark.parametrize("shard_size", [None, "20KB"])
def test_merged_lora_is_the_adapted_model(
    base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard_size: str | None
):
    """For transformers, and for this package; in one file or in shards."""
    place, adapter, params = lora_run(tmp_path / "run", base)
    out = tmp_path / "out"
    run(monkeypatch, "export", place, out, "--merge", *(["--shard-size", shard_size] if shard_size else []))
    ours = theirs.our_logits(base.config, frozen(base), adapter, params, ROWS)
    assert np.abs(ours - plain_logits(base)).max() > 0.1
    np.testing.assert_allclose(transformers_logits(out), ours, rtol=0, atol=1e-5)
    again = open_base(str(out))
    assert again.config == base.config and again.tokenizer.encode("red boat") == base.tokenizer.encode("red boat")
    merged = theirs.our_logits(again.config, frozen(again), FullFineTuning(), frozen(again), ROWS)
    np.testing.assert_allclose(merged, ours, rtol=0, atol=1e-5)
    files = sorted(out.glob("*.safetensors"))
    assert len(files) == 1 if shard_size is None else len(files) > 3
    for path in out.iterdir():
        assert path.stat().st_mode & 0o777 == 0o644, path
    for path in files if shard_size else []:
        held = [tensor.nbytes for tensor in load_file(path).values()]
        assert sum(held) <= 20_000 or len(held) == 1


@pytest.mark.parametrize("adapter", [IA3("q,v,o,up"), LoRA(3, 7.0, ALL_SEVEN, dora=True)], ids=["ia3", "dora"])
def test_merged_factors_are_the_adapted_model(
    base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adapter: IA3 | LoRA
):
    """For transformers, and for PEFT's own merge. Of (IA)³ it scales down_proj where ours scales up_proj."""
    params = theirs.drawn(adapter, base.config)
    place = write(tmp_path / "run", base, adapter.method, adapter, params)
    run(monkeypatch, "export", place, tmp_path / "out", "--merge")
    ours = theirs.our_logits(base.config, frozen(base), adapter, params, ROWS)
    assert np.abs(ours - plain_logits(base)).max() > 0.1
    np.testing.assert_allclose(transformers_logits(tmp_path / "out"), ours, rtol=0, atol=1e-5)
    run(monkeypatch, "export", place, tmp_path / "peft")
    model = peft.PeftModel.from_pretrained(hf.read(LlamaForCausalLM, base.directory), str(tmp_path / "peft"))
    np.testing.assert_allclose(theirs.their_logits(model.merge_and_unload().eval(), ROWS), ours, rtol=0, atol=1e-5)


def test_merged_full_is_what_was_learnt(base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    learnt = theirs.drawn(FullFineTuning(), base.config, scale=0.1)
    place = write(tmp_path / "run", base, "full", FullFineTuning(), learnt)
    run(monkeypatch, "export", place, tmp_path / "out", "--merge")
    found = loading.load(tmp_path / "out", base.config)
    jax.tree.map(np.testing.assert_array_equal, found, learnt)
    ours = theirs.our_logits(base.config, frozen(base), FullFineTuning(), learnt, ROWS)
    np.testing.assert_allclose(transformers_logits(tmp_path / "out"), ours, rtol=0, atol=1e-5)


def test_merging_rounds_to_the_type_on_disk_and_says_so(
    base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """W + (alpha/r)·B A is computed in float32 (here: float64) and rounded once; what is not adapted is copied."""
    shutil.copytree(base.directory, tmp_path / "half")
    path = tmp_path / "half" / "model.safetensors"
    half = {name: tensor.astype(ml_dtypes.bfloat16) for name, tensor in load_file(path).items()}
    save_file(half, path)
    adapter = LoRA(3, 7.0, "o,down")
    own = open_base(str(tmp_path / "half"))
    params = theirs.drawn(adapter, base.config)
    place = write(tmp_path / "run", own, "lora", adapter, params)
    run(monkeypatch, "export", place, tmp_path / "out", "--merge")
    assert "1 file of bfloat16 weights, rounded to the types of the base" in capsys.readouterr().out
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert set(found) == set(half) and all(tensor.dtype == ml_dtypes.bfloat16 for tensor in found.values())
    for name, tensor in found.items():
        projection = name.split(".")[-2]
        expected = half[name].astype(np.float64)
        if projection in params:
            a, b = (params[projection][part][int(name.split(".")[2])].astype(np.float64) for part in ("a", "b"))
            expected += 7 / 3 * b.reshape(-1, 3) @ a.reshape(3, -1)
            assert not np.array_equal(tensor, half[name])
        # Half a unit in the last place of bfloat16, and float32's own rounding.
        np.testing.assert_allclose(tensor.astype(np.float64), expected, rtol=2**-8, atol=1e-6, err_msg=name)


@pytest.mark.slow
def test_the_embedded_default_there_and_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Trained, exported, loaded by PEFT, imported again, and asked."""
    settings = RunConfig(
        method="prefix", prefix=PrefixTuning(6, "all"), steps=2, batch=4, limit=24, held_out=4, mesh="1x1"
    )
    train(settings, tmp_path / "run", quiet=True)
    run(monkeypatch, "export", tmp_path / "run", tmp_path / "out")
    assert "PREFIX_TUNING" in capsys.readouterr().out
    saved = load_run(tmp_path / "run")
    ours = theirs.our_logits(saved.base.config, frozen(saved.base), settings.prefix, saved.params, ROWS)
    model = hf.read(LlamaForCausalLM, EMBEDDED)
    plain = theirs.their_logits(model, ROWS)
    named = json.loads((tmp_path / "out" / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert Path(named).is_absolute() and Path(named).samefile(EMBEDDED)
    found = theirs.their_logits(peft.PeftModel.from_pretrained(model, str(tmp_path / "out")).eval(), ROWS)
    assert np.abs(ours - plain).max() > 0.1
    np.testing.assert_allclose(found, ours, rtol=0, atol=4e-5)  # its logits go to 20
    run(monkeypatch, "import", tmp_path / "out", tmp_path / "again", "--language", "de")
    again = load_run(tmp_path / "again")
    assert again.config.prefix == PrefixTuning(6, "all", "kv") and again.run_json["source"] == "de"
    imported = theirs.our_logits(saved.base.config, frozen(saved.base), again.config.prefix, again.params, ROWS)
    np.testing.assert_allclose(imported, ours, rtol=0, atol=4e-5)
    monkeypatch.setattr(sys, "argv", ["generate", str(tmp_path / "again"), "Who?", "--max-new-tokens", "4"])
    capsys.readouterr()
    generate.main()
    assert capsys.readouterr().out.count("\n") >= 1


def test_the_card(base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Settings, count, last held-out loss, scores, how to load it; nothing of this machine's directories."""
    rows = small.write_rows(tmp_path / "rows.jsonl", small.rows(12))
    place = train(small.configuration(base.directory, rows, method="lora", steps=2), tmp_path / "run", quiet=True)
    scores = {"metrics": ["em"], "languages": {"de": {"em": 0.25, "n": 8, "parse_failure_rate": 0.0}}}
    (place / "report.json").write_text(json.dumps({"tasks": {"rows": scores}}))
    run(monkeypatch, "export", place, tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    assert yaml.safe_load(front) == {
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "language": ["en"],
        "tags": ["jaxprefix", "lora"],
    }
    last = [row["held_out_loss"] for row in small.metrics(place) if "held_out_loss" in row][-1]
    for line in (
        "| lora.rank | 4 |",
        "| steps | 2 |",
        "| learning rate | 0.01 |",
        "| rows | rows.jsonl |",
        "| seed | 0 |",
    ):
        assert line in body
    assert f"Held-out loss at the end: {last:.4f}." in body
    assert "| language | em | rows |\n| --- | ---: | ---: |\n| de | 25.0 | 8 |" in body
    assert "| setting | value |\n| --- | --- |\n" in body
    assert "trainable: " in body and "PeftModel.from_pretrained" in body and "jaxprefix.peft import" in body
    assert str(tmp_path) not in text and str(base.directory.parent) not in text
    (place / "report.json").unlink()
    run(monkeypatch, "export", place, tmp_path / "merged", "--merge")
    merged = (tmp_path / "merged" / "README.md").read_text()
    assert "library_name: transformers" in merged and "Scores" not in merged and "PeftModel" not in merged


def test_a_hub_id_keeps_its_name_and_its_revision(base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As transformers takes them apart; the hub itself is not asked here."""
    monkeypatch.setattr("jaxprefix.runs.base_model.model_directory", lambda name: base.directory)
    adapter = LoRA(2)
    params = theirs.drawn(adapter, base.config)
    config = RunConfig(model="org/tiny@abc", method="lora", lora=adapter)
    save_run(tmp_path / "run", config, replace(base, path=None), params, "en")
    run(monkeypatch, "export", tmp_path / "run", tmp_path / "out")
    settings = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (settings["base_model_name_or_path"], settings["revision"]) == ("org/tiny", "abc")
    assert "base_model: org/tiny\n" in (tmp_path / "out" / "README.md").read_text()


def test_adapters_from_elsewhere_are_recognised_by_their_shapes(
    base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """A file that PEFT wrote carries no hash; one that names another base is imported with one line of warning."""
    pair = hf.Pair(hf.read(LlamaForCausalLM, base.directory), base.config, frozen(base), base.directory)
    theirs.save(pair, peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"]), tmp_path / "peft")
    run(monkeypatch, "import", tmp_path / "peft", tmp_path / "run", "--model", base.directory)
    out = capsys.readouterr().out
    assert out.count("\n") == 1 and "method lora from LORA" in out
    with pytest.raises(InputError, match=r"is missing .*; the base is the embedded default, --model names another"):
        run(monkeypatch, "import", tmp_path / "peft", tmp_path / "other")
    path = tmp_path / "peft" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": "org/another"}))
    run(monkeypatch, "import", tmp_path / "peft", tmp_path / "other", "--model", base.directory)
    assert capsys.readouterr().out.startswith("note: the adapter names the base org/another;")
    assert load_run(tmp_path / "other").config.max_length == 512 <= base.config.max_positions


def test_what_is_written_names_its_base(base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from safetensors import safe_open

    place, _, _ = lora_run(tmp_path / "run", base)
    run(monkeypatch, "export", place, tmp_path / "out")
    with safe_open(tmp_path / "out" / "adapter_model.safetensors", framework="np") as file:
        assert file.metadata() == {"format": "pt", "jaxprefix_base": base.fingerprint}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]  # no temporary directory is left


def test_a_merged_text_model_of_a_model_for_images_stands_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """transformers reads it as a text model, and computes what the adapted model computes."""
    kind = {"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "sliding_window": 8, "head_dim": 16}
    names = {"hidden_act": None, "hidden_activation": "gelu_pytorch_tanh", "tie_word_embeddings": True}
    directory = small.write_model(tmp_path / "model", scale=SCALE, **kind, **names)
    inner = json.loads((directory / "config.json").read_text())
    outer = {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "text_config": inner}
    (directory / "config.json").write_text(json.dumps(outer))
    tensors = load_file(directory / "model.safetensors")
    renamed = {f"language_model.{name}": tensor for name, tensor in tensors.items()}
    save_file(renamed | {"vision_tower.patch": np.zeros(2, np.float32)}, directory / "model.safetensors")
    own = open_base(str(directory))
    adapter = LoRA(3, 7.0, "q,v,down")
    params = theirs.drawn(adapter, own.config)
    place = write(tmp_path / "run", own, "lora", adapter, params)
    run(monkeypatch, "export", place, tmp_path / "out", "--merge")
    ours = theirs.our_logits(own.config, frozen(own), adapter, params, ROWS)
    found = theirs.their_logits(hf.read(Gemma3ForCausalLM, tmp_path / "out"), ROWS)
    np.testing.assert_allclose(found, ours, rtol=0, atol=1e-5 * np.abs(ours).max())
    assert open_base(str(tmp_path / "out")).config == own.config
