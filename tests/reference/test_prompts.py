"""llama-adapter and soft-prompt equal PEFT's on tiny models of every kind: logits, loss, gradients (law 9)."""

from pathlib import Path
from typing import Any

import gradients
import hugging_face as hf
import numpy as np
import peft
import pytest
import torch
from gradients import ROWS, assert_equal, ours, theirs

from jaxprefix.models.adapters import LlamaAdapter, SoftPrompt

pytestmark = pytest.mark.filterwarnings(gradients.IGNORED)

LENGTH, LAYERS = 5, 3
# PEFT's ADAPTION_PROMPT takes the ratio of heads from k_proj's sizes, which is right only where N·H = D.
ADAPTABLE = ("full heads", "grouped heads", "one key head", "tied")
PROMPTED = ("grouped heads", "heads wider than hidden", "tied", "mistral without window")


@pytest.fixture
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> hf.Pair:
    return hf.make(hf.KINDS[request.param], tmp_path)


@pytest.mark.parametrize(
    ("pair", "adapted", "activation"),
    [
        ("grouped heads", 2, "tanh"),
        ("mistral window", LAYERS, "identity"),
        pytest.param("grouped heads", 2, "identity", marks=pytest.mark.slow),
        *(pytest.param(kind, LAYERS, "identity", marks=pytest.mark.slow) for kind in ADAPTABLE),
    ],
    indirect=["pair"],
)
def test_llama_adapter_equals_peft(pair: hf.Pair, adapted: int, activation: Any):
    """One gate a layer. PEFT's gate has no tanh: ours is its inverse tanh, whose gradient has a factor 1 - tanh²."""
    base = hf.torch_logits(pair.torch, ROWS)[ROWS.mask]
    adapter = LlamaAdapter(LENGTH, f"top:{adapted}", "layer", activation)
    random = np.random.default_rng(3)
    hidden = random.normal(size=(adapted, LENGTH, pair.config.hidden_size)).astype(np.float32)
    gate = np.array([0.8, -0.6, 0.4][:adapted], np.float32)
    settings = peft.AdaptionPromptConfig(task_type="CAUSAL_LM", adapter_len=LENGTH, adapter_layers=adapted)
    model = peft.get_peft_model(pair.torch, settings)
    layers = [layer.self_attn for layer in model.base_model.model.model.layers[-adapted:]]
    with torch.no_grad():
        for layer, vectors, scale in zip(layers, hidden, gate, strict=True):
            layer.adaption_prompt.copy_(torch.tensor(vectors[None]))
            layer.adaption_gate.fill_(float(scale))
    expected = theirs(model)
    slopes = {
        "hidden": np.concatenate([layer.adaption_prompt.grad.numpy() for layer in layers]),
        "gate": np.concatenate([layer.adaption_gate.grad.numpy() for layer in layers]),
    }
    params = {"hidden": hidden, "gate": gate}
    if activation == "tanh":
        params["gate"] = np.arctanh(gate)
        slopes["gate"] = slopes["gate"] * (1 - gate**2)
    assert_equal(ours(pair, adapter, params), (*expected, slopes), base)


@pytest.mark.parametrize(
    "pair", ["mistral window", *(pytest.param(kind, marks=pytest.mark.slow) for kind in PROMPTED)], indirect=True
)
def test_soft_prompt_equals_peft(pair: hf.Pair):
    """Both put it before the embeddings, at positions 0..P-1; so a window passes over it in both."""
    base = hf.torch_logits(pair.torch, ROWS)[ROWS.mask]
    prompt = 0.3 * np.random.default_rng(4).normal(size=(LENGTH, pair.config.hidden_size)).astype(np.float32)
    settings = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=LENGTH)
    model = peft.get_peft_model(pair.torch, settings)
    table = model.prompt_encoder["default"].embedding.weight
    with torch.no_grad():
        table.copy_(torch.tensor(prompt))
    expected = theirs(model)
    found = ours(pair, SoftPrompt(LENGTH), {"prompt": prompt})
    assert_equal(found, (*expected, {"prompt": table.grad.numpy()}), base)
