"""The penalties of full fine-tuning: their values, gradients and Fisher information, and what they do to a run."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import small
import torch
from models import tiny
from safetensors.numpy import save_file
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM

from jaxprefix.distributed import mesh as meshes
from jaxprefix.errors import InputError
from jaxprefix.models import loading
from jaxprefix.models.adapters import IMPORTANCE, FullFineTuning
from jaxprefix.runs.base_model import load_weights, open_base
from jaxprefix.runs.config import RunConfig
from jaxprefix.runs.saved import load_run
from jaxprefix.tasks.plain_texts import read_texts
from jaxprefix.train import fisher as fishers
from jaxprefix.train import metrics
from jaxprefix.train.loop import train

FULL = FullFineTuning()
STRENGTHS = (0.0, 0.01, 0.1, 1.0, 10.0)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("penalty")
    small.write_model(folder / "model", scale=4)
    small.write_rows(folder / "rows.jsonl", small.rows(12))
    texts = [{"text": row["prompt"], "language": "de"} for row in small.rows(19)]
    small.write_rows(folder / "texts.jsonl", texts)
    return folder


def run(place: Path, name: str, **settings: Any) -> Path:
    """Three steps of full fine-tuning, unless they are done."""
    if not (place / name).is_dir():
        train(configuration(place, **settings), place / name, quiet=True)
    return place / name


def configuration(place: Path, **settings: Any) -> RunConfig:
    full = FullFineTuning(**settings)
    changes = {"method": "full", "steps": 3, "held_out": 0, "lr": 3e-3, "batch": 8, "warmup": 0.0, "weight_decay": 0.0}
    return small.configuration(place / "model", place / "rows.jsonl", full=full, **changes)


def ewc(place: Path, strength: float) -> dict[str, Any]:
    return {"regularise": "ewc", "strength": strength, "fisher_text": str(place / "texts.jsonl")}


def naive(params: Any, frozen: Any, importance: Any, strength: float) -> float:
    """λ/2 Σ F (θ - θ0)² in float64."""
    trees = (jax.tree.leaves(tree) for tree in (params, frozen, importance))
    leaves = zip(*([np.asarray(leaf, np.float64) for leaf in tree] for tree in trees), strict=True)
    return strength / 2 * sum(np.sum(weight * (learnt - start) ** 2) for learnt, start, weight in leaves)


@pytest.mark.parametrize("kind", ["l2-sp", "ewc"])
def test_value_and_gradient_are_those_of_the_formula(kind: Any):
    text = "texts" if kind == "ewc" else None
    adapter = FullFineTuning(regularise=kind, strength=0.7, fisher_text=text)
    params = jax.tree.map(lambda leaf: leaf + 0.1, tiny.noisy(FULL, 0.2))
    importance = jax.tree.map(np.abs, tiny.noisy(FULL, 1.0, seed=90))
    frozen = tiny.FROZEN | {IMPORTANCE: importance}
    weight = importance if kind == "ewc" else jax.tree.map(np.ones_like, importance)
    value, gradient = jax.jit(jax.value_and_grad(adapter.penalty))(params, frozen)
    assert float(value) == pytest.approx(naive(params, tiny.FROZEN, weight, 0.7), rel=1e-5)
    random = np.random.default_rng(2)
    for path, slope in jax.tree_util.tree_leaves_with_path(gradient):
        index = tuple(random.integers(0, size) for size in slope.shape)

        def moved(by: float, path: Any = path, index: Any = index) -> float:
            def move(at: Any, leaf: Any) -> Any:
                changed = np.array(leaf, np.float64)
                if at == path:
                    changed[index] += by
                return changed

            return naive(jax.tree_util.tree_map_with_path(move, params), tiny.FROZEN, weight, 0.7)

        assert float(slope[index]) == pytest.approx((moved(1e-4) - moved(-1e-4)) / 2e-4, rel=1e-4, abs=1e-6)


def test_the_fisher_is_the_mean_of_squared_gradients_of_single_texts(place: Path, tmp_path: Path):
    """Against transformers in float64, one text at a time. Its gradients are read as if they were weights."""
    base, mesh = open_base(str(place / "model")), meshes.make_mesh("1x1")
    frozen = load_weights(base, mesh, "float32")
    texts = fishers.load_texts(place / "texts.jsonl", base, longest=24)  # some are cut
    found = fishers.fisher_of_run(tmp_path / "new", texts, FULL, base, frozen, mesh, quiet=True).importance
    model = LlamaForCausalLM.from_pretrained(place / "model", dtype=torch.float64)
    sums = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    rows = read_texts(place / "texts.jsonl")
    for row in rows:
        ids = torch.tensor(base.tokenizer.prompt_ids(row["text"])[:24])
        model.zero_grad()
        cross_entropy(model(input_ids=ids[None]).logits[0, :-1], ids[1:], reduction="sum").backward()
        for name, parameter in model.named_parameters():
            sums[name] += parameter.grad**2
    tensors = {name: (total / len(rows)).float().numpy() for name, total in sums.items()}
    (tmp_path / "squares").mkdir()
    save_file(tensors, tmp_path / "squares" / "model.safetensors")
    (tmp_path / "squares" / "config.json").write_text((place / "model" / "config.json").read_text())
    expected = loading.load(tmp_path / "squares", base.config)
    for leaf, like in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert np.asarray(leaf) == pytest.approx(np.asarray(like), rel=2e-3, abs=1e-5 * float(np.abs(like).max()))


def test_a_strength_of_0_is_full_bit_for_bit(place: Path):
    plain, zero = run(place, "plain"), run(place, "zero", **ewc(place, 0.0))
    assert small.metrics(plain) == small.metrics(zero)
    assert not (zero / "fisher.safetensors").exists()
    leaves = (jax.tree.leaves(load_run(directory).params) for directory in (plain, zero))
    assert all(np.array_equal(one, other) for one, other in zip(*leaves, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["l2-sp", "ewc"])
def test_the_distance_to_the_start_falls_with_the_strength(place: Path, kind: str):
    """And the penalty is a column of its own, beside a loss that does not contain it."""
    base = open_base(str(place / "model"))
    frozen = load_weights(base, meshes.make_mesh("1x1"), "float32")
    importance, scale = jax.tree.map(np.ones_like, frozen), 1.0
    if kind == "ewc":
        scale, kept = 30.0, run(place, "ewc-0.1", **ewc(place, 3.0))
        importance = fishers._read(kept / fishers.FILE, base, frozen).importance
    distances = []
    for strength in STRENGTHS:
        settings = ewc(place, scale * strength) if kind == "ewc" else {"regularise": kind, "strength": strength}
        directory = run(place, f"{kind}-{strength}", **settings)
        distances.append(naive(load_run(directory).params, frozen, importance, 2.0))
        rows = metrics.read(directory)
        assert [("penalty" in row) for row in rows] == [strength > 0] * 3
        if strength:
            assert rows[0]["penalty"] == 0 < rows[1]["penalty"]
            assert rows[0]["loss"] == metrics.read(run(place, "plain"))[0]["loss"]
    assert distances == sorted(distances, reverse=True) and distances[-1] < 0.9 * distances[0]


def test_a_run_keeps_its_fisher_with_its_hash_and_another_run_can_use_it(place: Path):
    directory = run(place, "ewc-0.1", **ewc(place, 3.0))
    description = json.loads((directory / "run.json").read_text())["fisher"]
    assert description["file"] == "fisher.safetensors" and len(description["sha256"]) == 64
    settings = {"regularise": "ewc", "strength": 3.0, "fisher_text": str(directory / "fisher.safetensors")}
    again = run(place, "from-file", **settings)
    assert json.loads((again / "run.json").read_text())["fisher"] == description
    assert small.metrics(again) == small.metrics(directory)


def test_a_changed_fisher_or_other_texts_are_refused_when_a_run_resumes(place: Path, tmp_path: Path):
    rows = small.rows(9)
    small.write_rows(tmp_path / "texts.jsonl", [{"text": row["prompt"]} for row in rows])
    settings = {"regularise": "ewc", "strength": 1.0, "fisher_text": str(tmp_path / "texts.jsonl")}
    config = configuration(place, **settings)
    train(config, tmp_path / "run", quiet=True)
    small.write_rows(tmp_path / "texts.jsonl", [{"text": row["prompt"]} for row in rows[1:]])
    with pytest.raises(InputError, match=r"texts of --full.fisher-text changed"):
        train(config, tmp_path / "run", quiet=True)
    path = tmp_path / "run" / "fisher.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(InputError, match=r"fisher.safetensors has changed since the run was started"):
        train(config, tmp_path / "run", quiet=True)


def test_the_fisher_of_another_base_is_refused(place: Path, tmp_path: Path):
    directory = run(place, "ewc-0.1", **ewc(place, 3.0))
    small.write_model(tmp_path / "model", scale=2)
    with pytest.raises(InputError, match="is the Fisher information of another base: its hash is"):
        fishers.load_texts(directory / "fisher.safetensors", open_base(str(tmp_path / "model")), 96)
    (tmp_path / "bad.safetensors").write_bytes(b"abc")
    with pytest.raises(InputError, match=r"bad.safetensors is not readable Fisher information"):
        fishers.load_texts(tmp_path / "bad.safetensors", open_base(str(tmp_path / "model")), 96)


REFUSED: dict[str, dict[str, Any]] = {
    "needs a strength; give --full.strength": {"regularise": "l2-sp"},
    "strength 1.0 is of a penalty; give --full.regularise": {"strength": 1.0},
    "strength is -1.0; expected 0 or more": {"regularise": "l2-sp", "strength": -1.0},
    "strength is nan; expected 0 or more": {"regularise": "l2-sp", "strength": float("nan")},
    "ewc and fisher-text FILE belong together": {"regularise": "ewc", "strength": 1.0},
    "and fisher-text FILE belong together; give both": {"regularise": "l2-sp", "strength": 1.0, "fisher_text": "a"},
    "regularise is 'l1'; expected l2-sp or ewc": {"regularise": "l1", "strength": 1.0},
}


@pytest.mark.parametrize("expected", REFUSED)
def test_settings_that_contradict_each_other_are_refused(expected: str):
    with pytest.raises(InputError, match=expected):
        FullFineTuning(**REFUSED[expected])


def test_a_run_of_an_earlier_version_resumes(place: Path):
    """Its run.json has no settings of full."""
    directory = run(place, "plain")
    values = json.loads((directory / "run.json").read_text())
    del values["config"]["full"]
    (directory / "run.json").write_text(json.dumps(values))
    before = small.metrics(directory)
    train(configuration(place), directory, quiet=True)
    assert small.metrics(directory) == before


@pytest.mark.slow
def test_a_mesh_gives_the_same_fisher_and_losses(place: Path):
    """The Fisher information is sharded as the weights are."""
    alone = run(place, "ewc-0.1", **ewc(place, 3.0))
    train(replace(configuration(place, **ewc(place, 3.0)), mesh="2x2"), place / "on-a-mesh", quiet=True)
    for row, like in zip(small.metrics(place / "on-a-mesh"), small.metrics(alone), strict=True):
        assert row == pytest.approx(like, rel=1e-4)
