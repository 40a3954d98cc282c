"""Prefix, LoRA, DoRA and (IA)³ equal PEFT's on tiny models of every kind: logits, loss, gradients (law 9)."""

from pathlib import Path
from typing import Any

import adapted  # noqa: F401  (it registers the attention "slots")
import gradients
import hugging_face as hf
import numpy as np
import peft
import pytest
import torch
from gradients import ROWS, assert_equal, ours, theirs
from models import tiny
from models.every import ALL_SEVEN
from transformers import DynamicCache, LlamaForCausalLM

from jaxprefix.models.adapters import IA3, LlamaAdapter, LoRA, PrefixTuning
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.parameters import PROJECTIONS

pytestmark = pytest.mark.filterwarnings(gradients.IGNORED)

LENGTH, LAYERS = 5, 3
SHAPES = ("grouped heads", "one key head", "heads wider than hidden", "heads narrower than hidden")
FAMILIES = ("qwen2", "qwen3", "smollm3, listed", "gemma3, long", "apertus")
OTHER_SHAPES = ("one key head", "heads narrower than hidden", "mistral window")


@pytest.fixture
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> hf.Pair:
    return hf.make(hf.KINDS[request.param], tmp_path)


@pytest.mark.parametrize(
    ("pair", "targets", "dora"),
    [
        ("grouped heads", "q,v", False),
        ("heads wider than hidden", ALL_SEVEN, False),
        ("heads wider than hidden", ALL_SEVEN, True),
        ("qwen2", "q,v", False),
        ("qwen2", "q,v", True),
        ("gemma3", ALL_SEVEN, False),
        *(
            pytest.param(kind, ALL_SEVEN, dora, marks=pytest.mark.slow)
            for kind in ("qwen3", "smollm3, listed", *OTHER_SHAPES)
            for dora in (False, True)
        ),
    ],
    indirect=["pair"],
)
def test_lora_equals_peft(pair: hf.Pair, targets: str, dora: bool):
    base = hf.torch_logits(pair.torch, ROWS)[ROWS.mask]
    adapter = LoRA(rank=3, alpha=7.0, targets=targets, dora=dora)
    settings = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=3,
        lora_alpha=7,
        lora_dropout=0.0,
        target_modules=adapter.projections,
        init_lora_weights=False,
        use_dora=dora,
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
            if dora:
                magnitudes = np.stack([read(layer.lora_magnitude_vector["default"].weight) for layer in layers])
                found[name]["magnitude"] = magnitudes.reshape(b.shape[:-1])
        return found

    params = as_ours(lambda weight: weight.detach().numpy())
    assert_equal(ours(pair, adapter, params), (*expected, as_ours(lambda weight: weight.grad.numpy())), base)


@pytest.mark.parametrize(
    "pair", ["grouped heads", "qwen2", pytest.param("heads wider than hidden", marks=pytest.mark.slow)], indirect=True
)
def test_ia3_equals_peft(pair: hf.Pair):
    """PEFT scales the input of down_proj, and ours the output of up_proj."""
    base = hf.torch_logits(pair.torch, ROWS)[ROWS.mask]
    model = peft.get_peft_model(
        pair.torch,
        peft.IA3Config(
            task_type="CAUSAL_LM", target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]
        ),
    )
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


def projected(attention: Any, vectors: torch.Tensor, size: int) -> list[torch.Tensor]:
    """The keys and values [1, K, P, H] of vectors [P, D] by torch's frozen projections."""
    keys, values = (each(vectors).view(1, LENGTH, -1, size) for each in (attention.k_proj, attention.v_proj))
    keys = attention.k_norm(keys) if hasattr(attention, "k_norm") else keys
    return [keys.transpose(1, 2), values.transpose(1, 2)]


def scaled(layer: Any, vectors: torch.Tensor, sizes: DecoderConfig) -> torch.Tensor:
    """In Gemma, a learnt vector is multiplied by the rms of the factors of the layer's attention norm."""
    return vectors * (1 + layer.input_layernorm.weight).pow(2).mean().sqrt() if sizes.norm_offset else vectors


@pytest.mark.parametrize(
    "pair", [pytest.param("grouped heads", marks=pytest.mark.slow), "heads wider than hidden", *FAMILIES], indirect=True
)
@pytest.mark.parametrize("source", ["hidden", pytest.param("kv", marks=pytest.mark.slow)])
def test_a_prefix_equals_torch(pair: hf.Pair, source: Any):
    """PEFT has no prefix of vectors that the frozen projections turn into keys and values: asks torch's autograd."""
    base, sizes = hf.torch_logits(pair.torch, ROWS)[ROWS.mask], pair.config
    adapter = PrefixTuning(length=LENGTH, layers="all", source=source)
    learnt = {
        name: torch.tensor(np.asarray(leaf), requires_grad=True)
        for name, leaf in tiny.noisy(adapter, 1.0, sizes, pair.frozen).items()
    }
    model: LlamaForCausalLM = pair.torch
    cache, count = DynamicCache(), len(ROWS.tokens)
    for number, layer in enumerate(model.model.layers):
        if source == "hidden":
            vectors = scaled(layer, learnt["hidden"][number], sizes)
            heads = projected(layer.self_attn, vectors, sizes.head_size)
        else:
            heads = [learnt[name][number].transpose(0, 1)[None] for name in ("keys", "values")]
        cache.update(*(part.expand(count, -1, -1, -1) for part in heads), number)
    mask = np.concatenate([np.ones((count, LENGTH), bool), ROWS.mask], axis=1)
    positions = np.where(ROWS.mask, ROWS.positions, 0)  # text starts at 0, whatever stands in the cache (law 4)
    expected = theirs(
        model,
        attention_mask=torch.tensor(mask).long(),
        position_ids=torch.tensor(positions).long(),
        past_key_values=cache,
    )
    found = ours(pair, adapter, {name: leaf.detach().numpy() for name, leaf in learnt.items()})
    assert_equal(found, (*expected, {name: leaf.grad.numpy() for name, leaf in learnt.items()}), base)


@pytest.mark.parametrize(
    "pair", ["gemma3", *(pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES)], indirect=True
)
def test_a_llama_adapter_equals_torch(pair: hf.Pair):
    """PEFT's works on Llama and Mistral alone. Every query sees the virtual tokens, whatever the window."""
    base, adapter = hf.torch_logits(pair.torch, ROWS)[ROWS.mask], LlamaAdapter(LENGTH, "all")
    learnt = {
        name: torch.tensor(np.asarray(leaf), requires_grad=True)
        for name, leaf in tiny.noisy(adapter, 1.0, pair.config, pair.frozen).items()
    }
    pair.torch.set_attn_implementation("slots")
    for number, layer in enumerate(pair.torch.model.layers):
        vectors = scaled(layer, learnt["hidden"][number], pair.config)
        heads = projected(layer.self_attn, vectors, pair.config.head_size)
        layer.self_attn.slots = (*(part[0] for part in heads), torch.tanh(learnt["gate"][number]))
    expected = theirs(pair.torch)
    found = ours(pair, adapter, {name: leaf.detach().numpy() for name, leaf in learnt.items()})
    assert_equal(found, (*expected, {name: leaf.grad.numpy() for name, leaf in learnt.items()}), base)
