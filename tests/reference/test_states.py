"""The measurements of layers against transformers and PEFT on the same tiny model, within 1e-5."""

from pathlib import Path
from typing import Any

import adapted
import gradients
import hugging_face as hf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from jaxprefix.models import decoder
from jaxprefix.models.adapters import Adapter, LlamaAdapter, LoRA, NoAdapter, PrefixTuning, SoftPrompt
from jaxprefix.models.states import LayerStates, layer_states

pytestmark = pytest.mark.filterwarnings(gradients.IGNORED)

ROWS = hf.rows("right", lengths=(14, 9, 14))
LENGTHS = ROWS.mask.sum(axis=1)
TOKENS = np.array([[3, 50], [90, 0], [17, 17]])
POSITIONS = np.arange(1, ROWS.tokens.shape[1] + 1)
LENGTH = 4  # virtual tokens
GEMMA = "gemma3"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, hf.Pair]:
    """gemma3: layers with and without a window of five tokens, scaled embeddings and other norms."""
    kinds = ("grouped heads", "mistral window", GEMMA)
    return {kind: hf.make(hf.KINDS[kind], tmp_path_factory.mktemp("model")) for kind in kinds}


@pytest.fixture
def pair(request: pytest.FixtureRequest, pairs: dict[str, hf.Pair]) -> hf.Pair:
    return pairs[getattr(request, "param", "grouped heads")]


def ours(pair: hf.Pair, adapter: Adapter, params: Any, **wanted: Any) -> LayerStates:
    @jax.jit
    def run(params: Any, frozen: Any, tokens: Any, lengths: Any) -> LayerStates:
        weights, hooks = adapter.bind(pair.config, params, frozen)
        batch = decoder.Batch.right_padded(tokens, lengths)
        return layer_states(pair.config, weights, batch, hooks, **wanted)

    states = run(params, pair.frozen, jnp.asarray(ROWS.tokens), jnp.asarray(LENGTHS, jnp.int32))
    return jax.tree.map(np.asarray, states)


def theirs(model: Any) -> tuple[list[np.ndarray], np.ndarray, list[np.ndarray] | None]:
    """The states of the text before any final norm, the logits and the attention weights.

    A prompt's own positions, which PEFT returns too, are dropped from the states.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    kept = []
    hook = inner.model.layers[-1].register_forward_hook(
        lambda module, inputs, outputs: kept.append(outputs[0] if isinstance(outputs, tuple) else outputs)
    )
    with torch.no_grad():
        found = model(
            input_ids=torch.tensor(ROWS.tokens).long(),
            attention_mask=torch.tensor(ROWS.mask).long(),
            output_hidden_states=True,
            output_attentions=True,
        )
    hook.remove()
    states = [*found.hidden_states[:-1], *kept]
    time = ROWS.tokens.shape[1]
    attentions = None if found.attentions is None else [leaf.numpy() for leaf in found.attentions]
    return [leaf[:, -time:].numpy() for leaf in states], found.logits[:, -time:].numpy(), attentions


def with_adapter(pair: hf.Pair, adapter: Adapter, folder: Path) -> tuple[Any, Any]:
    """Random parameters, and a torch model that has them."""
    params = adapted.drawn(pair, adapter, folder, seed=5)
    return params, adapted.model_of(pair, adapter, params, folder)


METHODS = {
    "none": NoAdapter(),
    "prefix": PrefixTuning(length=LENGTH, layers="all", start="random"),
    "prefix of the top layers": PrefixTuning(length=LENGTH, layers="top:2", start="random"),
    "soft-prompt": SoftPrompt(length=LENGTH, start="random"),
    "lora": LoRA(),
}


@pytest.mark.parametrize(
    ("pair", "name"), [*(("grouped heads", name) for name in METHODS), (GEMMA, "none")], indirect=["pair"]
)
def test_vectors_lens_and_loss_are_those_of_transformers(name: str, pair: hf.Pair, tmp_path: Path):
    params, model = with_adapter(pair, METHODS[name], tmp_path)
    states, logits, _ = theirs(model)
    found = ours(pair, METHODS[name], params, pooling="weighted", lens_tokens=jnp.asarray(TOKENS), loss=True)
    last_vectors = ours(pair, METHODS[name], params, pooling="last").vectors
    assert found.vectors is not None and found.lens is not None and found.entropy is not None
    base, row = pair.torch, np.arange(3)
    for layer, state in enumerate(states):
        weight = POSITIONS * ROWS.mask
        mean = np.einsum("bt,btd->bd", weight / weight.sum(axis=1, keepdims=True), state.astype(np.float64))
        assert np.abs(found.vectors[layer] - mean).max() < 1e-5
        last = state[row, LENGTHS - 1]
        assert np.abs(last_vectors[layer] - last).max() < 1e-5
        scores = base.lm_head(base.model.norm(torch.tensor(last))).double().softmax(dim=-1).numpy()
        assert np.abs(found.lens[layer] - scores[row[:, None], TOKENS]).max() < 1e-5
        assert np.abs(found.entropy[layer] + (scores * np.log(scores)).sum(axis=1)).max() < 1e-5
    for index, length in enumerate(LENGTHS):
        text = torch.tensor(logits[index, : length - 1]).double(), torch.tensor(ROWS.tokens[index, 1:length]).long()
        assert found.loss[index] == pytest.approx(cross_entropy(*text, reduction="sum").item(), rel=1e-5)


@pytest.mark.parametrize(
    ("pair", "name"),
    [
        *(("grouped heads", name) for name in ("prefix", "prefix of the top layers", "soft-prompt")),
        ("mistral window", "soft-prompt"),
    ],
    indirect=["pair"],
)
def test_the_share_of_virtual_tokens_is_that_of_materialised_weights(name: str, pair: hf.Pair, tmp_path: Path):
    params, model = with_adapter(pair, METHODS[name], tmp_path)
    _, _, attentions = theirs(model)
    assert attentions is not None
    found = ours(pair, METHODS[name], params, attention=True)
    assert found.share is not None and found.uniform_share is not None
    for layer, weights in enumerate(attentions):
        if weights.shape[-1] == ROWS.tokens.shape[1]:  # a layer below the prefix
            assert not found.share[layer].any() and not found.uniform_share[layer].any()
            continue
        for index, length in enumerate(LENGTHS):
            queries = weights[index, :, -ROWS.tokens.shape[1] :][:, :length]  # of the text, [N, T, P+T]
            share = queries[..., :LENGTH].sum(axis=-1).mean(axis=-1)
            assert np.abs(found.share[layer, index] - share).max() < 1e-5
            seen = queries[0] > 0
            uniform = (seen[:, :LENGTH].sum(axis=-1) / seen.sum(axis=-1)).mean()
            assert found.uniform_share[layer, index] == pytest.approx(uniform, abs=1e-6)
    assert 0.01 < found.share[-1].min() and found.share[-1].max() < 0.95


def test_a_method_without_virtual_tokens_has_no_share(pair: hf.Pair):
    for adapter in (NoAdapter(), LlamaAdapter(length=LENGTH)):
        params = jax.tree.map(jnp.asarray, adapted.drawn(pair, adapter, Path(), seed=5))
        found = ours(pair, adapter, params, attention=True)
        assert not found.share.any() and found.share.shape == (3, 3, 4)


@pytest.mark.parametrize(("pair", "name"), [("grouped heads", "soft-prompt"), (GEMMA, "none")], indirect=["pair"])
def test_active_neurons_are_those_of_transformers(name: str, pair: hf.Pair, tmp_path: Path):
    """The outputs of the activation that are above 0, without padding and the positions of a prompt."""
    params, model = with_adapter(pair, METHODS[name], tmp_path)
    kept: list[np.ndarray] = []
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    for layer in inner.model.layers:
        layer.mlp.act_fn.register_forward_hook(lambda module, inputs, outputs: kept.append(outputs.numpy()))
    theirs(model)
    found = ours(pair, METHODS[name], params, neurons=True).active
    time = ROWS.tokens.shape[1]
    expected = np.array([((gate[:, -time:] > 0) & ROWS.mask[..., None]).sum(axis=1) for gate in kept])
    assert expected.shape == found.shape and np.abs(found - expected).max() <= 1  # a 0 may have either sign
    assert np.mean(found == expected) > 0.999 and 0 < expected.mean() < time
