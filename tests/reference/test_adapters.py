"""Prefix, LoRA and (IA)³ equal PEFT's on tiny models of every kind: logits, loss, gradients (law 9)."""

from pathlib import Path
from typing import Any

import gradients
import hugging_face as hf
import numpy as np
import peft
import pytest
import torch
from gradients import ROWS, assert_equal, ours, theirs
from models.every import ALL_SEVEN
from transformers import DynamicCache, LlamaForCausalLM

from jaxprefix.models.adapters import IA3, LoRA, PrefixTuning
from jaxprefix.models.parameters import PROJECTIONS

pytestmark = pytest.mark.filterwarnings(gradients.IGNORED)

LENGTH, LAYERS = 5, 3
SHAPES = ("grouped heads", "one key head", "heads wider than hidden", "heads narrower than hidden")
OTHER_SHAPES = ("one key head", "heads narrower than hidden", "mistral window")


@pytest.fixture
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> hf.Pair:
    return hf.make(hf.KINDS[request.param], tmp_path)


@pytest.mark.parametrize(
    ("pair", "targets"),
    [
        ("grouped heads", "q,v"),
        ("heads wider than hidden", ALL_SEVEN),
        *(pytest.param(kind, ALL_SEVEN, marks=pytest.mark.slow) for kind in OTHER_SHAPES),
    ],
    indirect=["pair"],
)
def test_lora_equals_peft(pair: hf.Pair, targets: str):
    base = hf.torch_logits(pair.torch, ROWS)[ROWS.mask]
    adapter = LoRA(rank=3, alpha=7.0, targets=targets)
    settings = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=3,
        lora_alpha=7,
        lora_dropout=0.0,
        target_modules=adapter.projections,
        init_lora_weights=False,
    )
    model = peft.get_peft_model(pair.torch, settings)
    expected = theirs(model)

    def as_ours(read: Any) -> dict[str, dict[str, np.ndarray]]:
        """PEFT's tensors, or their gradients, as LoRA's tree: heads apart, layers stacked."""
        found = {}
        for name in adapter.projections:
            module = "self_attn" if name[0] in "qkvo" else "mlp"
            layers = [getattr(getattr(layer, module), name) for layer in model.base_model.model.model.layers]
            a = np.stack([read(layer.lora_A["default"].weight) for layer in layers])  # [L, R, in]
            b = np.stack([read(layer.lora_B["default"].weight) for layer in layers])  # [L, out, R]
            if name == "o_proj":
                a = a.reshape(LAYERS, 3, -1, pair.config.head_size)
            elif name in PROJECTIONS[:3]:
                b = b.reshape(LAYERS, -1, pair.config.head_size, 3)
            found[name] = {"a": a, "b": b}
        return found

    params = as_ours(lambda weight: weight.detach().numpy())
    assert_equal(ours(pair, adapter, params), (*expected, as_ours(lambda weight: weight.grad.numpy())), base)


@pytest.mark.parametrize(
    "pair", ["grouped heads", pytest.param("heads wider than hidden", marks=pytest.mark.slow)], indirect=True
)
def test_ia3_equals_peft(pair: hf.Pair):
    """PEFT scales the input of down_proj, and ours the output of up_proj."""
    base = hf.torch_logits(pair.torch, ROWS)[ROWS.mask]
    model = peft.get_peft_model(pair.torch, peft.IA3Config(task_type="CAUSAL_LM"))
    torch.manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "ia3_l" in name:
                parameter.normal_(1.0, 0.5)
    expected = theirs(model)
    heads = (LAYERS, pair.config.kv_heads, pair.config.head_size)

    def as_ours(read: Any) -> dict[str, dict[str, np.ndarray]]:
        layers = model.base_model.model.model.layers
        k, v = (
            np.stack([read(getattr(layer.self_attn, name).ia3_l["default"]) for layer in layers]).reshape(heads)
            for name in ("k_proj", "v_proj")
        )
        up = np.stack([read(layer.mlp.down_proj.ia3_l["default"])[0] for layer in layers])
        return {"k_proj": {"gain": k}, "up_proj": {"gain": up}, "v_proj": {"gain": v}}

    params = as_ours(lambda factor: factor.detach().numpy())
    assert_equal(ours(pair, IA3(), params), (*expected, as_ours(lambda factor: factor.grad.numpy())), base)


def rotated(keys: np.ndarray, offset: int) -> np.ndarray:
    """Keys `[..., H]` turned by `offset` positions, as complex numbers: an account of RoPE apart from the package's."""
    low, high = np.split(keys.astype(np.float64), 2, axis=-1)
    frequencies = hf.THETA ** (-np.arange(low.shape[-1]) / low.shape[-1])
    turned = (low + 1j * high) * np.exp(1j * offset * frequencies)
    return np.concatenate([turned.real, turned.imag], axis=-1).astype(np.float32)


@pytest.mark.parametrize(
    "pair",
    [
        "grouped heads",
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in (*SHAPES[1:], "mistral without window")),
    ],
    indirect=True,
)
def test_kv_prefix_equals_peft(pair: hf.Pair):
    """PEFT stores keys as they are used, and its text starts at position P: ours, turned by +P (gradients too).

    Under Mistral's window PEFT's prefix is text that passes out of sight; ours is always seen (law 4).
    """
    base = hf.torch_logits(pair.torch, ROWS)[ROWS.mask]
    adapter = PrefixTuning(length=LENGTH, layers="all", source="kv")
    heads = (pair.config.kv_heads, pair.config.head_size)
    keys, values = np.random.default_rng(3).normal(size=(2, LAYERS, LENGTH, *heads)).astype(np.float32)
    settings = peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=LENGTH, prefix_projection=False)
    model = peft.get_peft_model(pair.torch, settings)
    table = model.prompt_encoder["default"].embedding.weight  # [P, L·2·K·H]
    stored = np.stack([rotated(keys, LENGTH), values], axis=1)  # [L, 2, P, K, H]
    with torch.no_grad():
        table.copy_(torch.tensor(stored).permute(2, 0, 1, 3, 4).reshape(LENGTH, -1))
    expected = theirs(model)
    gradient = table.grad.numpy().reshape(LENGTH, LAYERS, 2, *heads).transpose(2, 1, 0, 3, 4)
    gradients = {"keys": rotated(gradient[0], -LENGTH), "values": gradient[1]}
    assert_equal(ours(pair, adapter, {"keys": keys, "values": values}), (*expected, gradients), base)


@pytest.mark.parametrize(
    "pair", [pytest.param("grouped heads", marks=pytest.mark.slow), "heads wider than hidden"], indirect=True
)
def test_hidden_prefix_equals_torch(pair: hf.Pair):
    """PEFT has no prefix of vectors that the frozen projections turn into keys and values: asks torch's autograd."""
    base = hf.torch_logits(pair.torch, ROWS)[ROWS.mask]
    adapter = PrefixTuning(length=LENGTH, layers="all")
    vectors = np.random.default_rng(4).normal(size=(LAYERS, LENGTH, pair.config.hidden_size)).astype(np.float32)
    learnt = torch.tensor(vectors, requires_grad=True)
    model: LlamaForCausalLM = pair.torch
    cache, count = DynamicCache(), len(ROWS.tokens)
    kv_heads = (pair.config.kv_heads, pair.config.head_size)
    for number, layer in enumerate(model.model.layers):
        projected = (layer.self_attn.k_proj(learnt[number]), layer.self_attn.v_proj(learnt[number]))
        heads = [part.view(1, LENGTH, *kv_heads).transpose(1, 2).expand(count, -1, -1, -1) for part in projected]
        cache.update(*heads, number)
    mask = np.concatenate([np.ones((count, LENGTH), bool), ROWS.mask], axis=1)
    positions = np.where(ROWS.mask, ROWS.positions, 0)  # text starts at 0, whatever stands in the cache (law 4)
    expected = theirs(
        model,
        attention_mask=torch.tensor(mask).long(),
        position_ids=torch.tensor(positions).long(),
        past_key_values=cache,
    )
    found = ours(pair, adapter, {"hidden": vectors})
    assert_equal(found, (*expected, {"hidden": learnt.grad.numpy()}), base)
