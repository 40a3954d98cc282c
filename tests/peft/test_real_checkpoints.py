"""Checkpoints as people have them, opened and merged: the logits are those of transformers on the same files."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
import small
import theirs
from reference import hugging_face as hf
from safetensors.numpy import load_file, save_file
from transformers import LlamaForCausalLM

from jaxprefix.models import loading
from jaxprefix.models.adapters import LoRA, NoAdapter
from jaxprefix.peft import __main__ as command
from jaxprefix.runs.base_model import BaseModel, open_base
from jaxprefix.runs.config import RunConfig
from jaxprefix.runs.saved import save_run

ROWS = hf.rows("right", lengths=(12, 9), vocabulary=512)
FILE, INDEX = "model.safetensors", "model.safetensors.index.json"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def own_head(directory: Path) -> None:
    """What merging an adapter that trained both leaves: case 01."""
    tensors = load_file(directory / FILE)
    noise = np.random.default_rng(1).normal(0, 0.3, tensors[EMBEDDING].shape).astype(np.float32)
    save_file(tensors | {HEAD: tensors[EMBEDDING] + noise}, directory / FILE, metadata={"format": "pt"})


def head_twice(directory: Path) -> None:
    tensors = load_file(directory / FILE)
    save_file(tensors | {HEAD: tensors[EMBEDDING].copy()}, directory / FILE, metadata={"format": "pt"})


def head_alone(directory: Path) -> None:
    tensors = load_file(directory / FILE)
    tensors[HEAD] = tensors.pop(EMBEDDING)
    save_file(tensors, directory / FILE, metadata={"format": "pt"})


def stale_index(directory: Path) -> None:
    """An index of shards that were deleted when the single file was saved."""
    (directory / INDEX).write_text(json.dumps({"weight_map": {EMBEDDING: "model-00001-of-00002.safetensors"}}))


def in_two_shards(directory: Path) -> None:
    """A norm in both shards, and an index that names the wrong one for the embedding."""
    tensors = load_file(directory / FILE)
    (directory / FILE).unlink()
    parts = dict(list(tensors.items())[::2]), dict(list(tensors.items())[1::2])
    for number, part in enumerate(parts):
        held = part | {"model.norm.weight": tensors["model.norm.weight"]}
        save_file(held, directory / f"model-{number}.safetensors", metadata={"format": "pt"})
    places = {name: f"model-{number}.safetensors" for number, part in enumerate(parts) for name in part}
    places[EMBEDDING] = "model-0.safetensors" if EMBEDDING in parts[1] else "model-1.safetensors"
    (directory / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))


def logits(base: BaseModel) -> np.ndarray:
    return theirs.our_logits(base.config, loading.load(base.directory, base.config), NoAdapter(), {}, ROWS)


def transformers_logits(directory: Path) -> np.ndarray:
    return theirs.their_logits(hf.read(LlamaForCausalLM, directory), ROWS)


CASES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a head of its own": (own_head, "the stored head is used, as in transformers"),
    "the head twice": (head_twice, ""),
    "the head alone": (head_alone, ""),
    "a stale index": (stale_index, f"ignored {INDEX}, which is out of date"),
    "tensors in two shards": (in_two_shards, ""),
}


@pytest.mark.parametrize("name", CASES)
def test_the_logits_are_those_of_transformers_before_and_after_merging(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    change, line = CASES[name]
    directory = small.write_model(tmp_path / "base", scale=5.0, tie_word_embeddings=True)
    change(directory)
    base = open_base(str(directory))
    err = capsys.readouterr().err
    assert err.count("\n") == bool(line) and line in err
    np.testing.assert_allclose(logits(base), transformers_logits(base.directory), rtol=0, atol=1e-5)

    adapter = LoRA(2, 4.0, "q,v")
    params = jax.tree.map(np.zeros_like, theirs.drawn(adapter, base.config))  # merging changes nothing
    config = RunConfig(model=str(base.directory), method="lora", lora=adapter)
    save_run(tmp_path / "run", config, base, params, "en")
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["peft", "export", str(tmp_path / "run"), str(out), "--merge"])
    command.main()
    np.testing.assert_allclose(transformers_logits(out), transformers_logits(base.directory), rtol=0, atol=1e-6)
    assert json.loads((out / "config.json").read_text())["tie_word_embeddings"] == base.config.tied
    assert (HEAD in load_file(out / FILE)) == (not base.config.tied)
    capsys.readouterr()
    assert open_base(str(out)).config == base.config and not capsys.readouterr().err
