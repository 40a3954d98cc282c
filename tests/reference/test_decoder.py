"""The decoder equals transformers' Llama and Mistral: every kind of model, padded on either side (law 9)."""

from functools import partial
from pathlib import Path
from typing import Any

import hugging_face as hf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxprefix.models import decoder, loading
from jaxprefix.models.config import DecoderConfig


@partial(jax.jit, static_argnums=0)
def our_logits(config: DecoderConfig, frozen: Any, batch: decoder.Batch) -> jax.Array:
    return decoder.logits(frozen, decoder.hidden_states(config, frozen, batch))


def logits(config: DecoderConfig, frozen: Any, rows: hf.Rows) -> np.ndarray:
    return np.asarray(our_logits(config, frozen, decoder.Batch(jnp.array(rows.tokens), jnp.array(rows.positions))))


HALVES = ("tied", "llama3 rope", "mistral window")


@pytest.fixture(scope="module", params=hf.KINDS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> hf.Pair:
    return hf.make(hf.KINDS[request.param], tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("side", ["right", "left"])
def test_logits(pair: hf.Pair, side: str):
    rows = hf.rows(side)
    theirs, ours = hf.torch_logits(pair.torch, rows), logits(pair.config, pair.frozen, rows)
    error = np.abs(theirs - ours)[rows.mask].max()
    print(f"largest error {error:.1e} of logits with deviation {theirs[rows.mask].std():.2f}")  # pytest -rP shows it
    assert theirs[rows.mask].std() > 0.3  # logits near zero would equal anything
    assert error <= 1e-5


def test_the_files_differ_as_their_kinds_say(tmp_path: Path):
    for name in ("sharded", "grouped heads"):
        hf.make(hf.KINDS[name], tmp_path / name)
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 2
    assert len(list((tmp_path / "grouped heads").glob("*.safetensors"))) == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("llama3 rope, old place", "llama3 rope"),
        ("linear rope, old name", "linear rope"),
        ("yarn, old name", "yarn"),
        ("mistral window, old place", "mistral window"),
    ],
)
def test_old_and_new_places_of_rope_are_one_configuration(tmp_path: Path, old: str, new: str):
    found = {name: hf.make(hf.KINDS[name], tmp_path / name).config for name in (old, new)}
    texts = {name: (tmp_path / name / "config.json").read_text() for name in (old, new)}
    assert "rope_parameters" in texts[new] and "rope_parameters" not in texts[old]
    assert found[old] == found[new]


@pytest.mark.parametrize("name", ["grouped heads", *(pytest.param(name, marks=pytest.mark.slow) for name in HALVES)])
def test_bfloat16_is_no_further_from_float32_than_torch(tmp_path: Path, name: str):
    kind = hf.KINDS[name]
    pair = hf.make(hf.Kind(kind.family, kind.changes, dtype=torch.bfloat16), tmp_path)
    rows = hf.rows("right", lengths=(24, 24, 20, 17, 24, 24, 9, 24))
    exact = hf.torch_logits(pair.torch, rows)
    half = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16), decoder.shapes(pair.config))
    ours = logits(pair.config, loading.load(pair.directory, pair.config, half), rows)
    theirs = hf.torch_logits(hf.read(type(pair.torch), pair.directory, torch.bfloat16), rows)

    def error(found: np.ndarray) -> float:
        return float(np.sqrt(np.mean((found - exact)[rows.mask] ** 2)))

    print(f"bfloat16 error: {error(ours):.2e}, torch {error(theirs):.2e}, ratio {error(ours) / error(theirs):.2f}")
    assert error(theirs) > 1e-3  # torch did compute in bfloat16
    assert error(ours) <= 1.5 * error(theirs)
