"""Prefix and LoRA equal PEFT's on one tiny Llama: logits, loss, gradients (law 9). Nothing here starts at zero."""

from pathlib import Path
from typing import Any

import hugging_face as hf
import jax
import jax.numpy as jnp
import numpy as np
import peft
import pytest
import torch
from transformers import DynamicCache, LlamaForCausalLM

from jaxprefix.models import decoder
from jaxprefix.models.adapters import Adapter, LoRA, PrefixTuning
from jaxprefix.models.hooks import PROJECTIONS
from jaxprefix.train.data import TrainBatch
from jaxprefix.train.step import summed_loss

# peft 0.21 asks transformers 5 by an old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

LENGTH, LAYERS, KV_HEADS, SIZE, WIDTH = 5, 3, 2, 8, 32
ROWS = hf.rows("right", lengths=(12, 9, 12))  # PEFT counts positions itself, so only right padding can be compared
FIRST_LEARNT = 4  # the tokens before it are the prompt


@pytest.fixture
def pair(tmp_path: Path) -> hf.Pair:
    return hf.make(hf.Kind(), tmp_path)


def labels() -> torch.Tensor:
    """What transformers wants: the tokens themselves, -100 where nothing is learnt."""
    learnt = ROWS.mask & (np.arange(ROWS.tokens.shape[1]) >= FIRST_LEARNT)
    return torch.tensor(np.where(learnt, ROWS.tokens, -100)).long()


def batch() -> TrainBatch:
    """The same rows as the trainer sees them (one micro-batch, without its dimension)."""
    count, time = ROWS.tokens.shape
    at = np.broadcast_to(np.arange(FIRST_LEARNT - 1, time - 1), (count, time - FIRST_LEARNT))
    leaves = (ROWS.tokens, ROWS.positions, at, ROWS.tokens[:, FIRST_LEARNT:], ROWS.mask[:, FIRST_LEARNT:] * 1.0)
    return jax.tree.map(jnp.asarray, TrainBatch(*leaves))


def ours(pair: hf.Pair, adapter: Adapter, params: Any) -> tuple[np.ndarray, float, Any]:
    """Logits at the real tokens, the mean loss over learnt tokens, its gradients."""
    rows = batch()

    @jax.jit
    def run(params: Any, frozen: Any) -> tuple[jax.Array, Any]:
        def loss(params: Any) -> jax.Array:
            total = summed_loss(pair.config, adapter, "dots", params, frozen, rows, None)
            return total / jnp.sum(rows.weights)

        weights, hooks = adapter.bind(params, frozen)
        states = decoder.hidden(pair.config, weights, rows.inputs, hooks)
        return decoder.logits(weights, states), jax.value_and_grad(loss)(params)

    logits, (loss, gradients) = run(jax.tree.map(jnp.asarray, params), pair.frozen)
    return np.asarray(logits)[ROWS.mask], float(loss), hf.numpy(gradients)


def theirs(model: Any, **more: Any) -> tuple[np.ndarray, float]:
    """The same of a torch model; its gradients are then in its parameters."""
    tokens, mask = torch.tensor(ROWS.tokens).long(), torch.tensor(ROWS.mask).long()
    found = model(input_ids=tokens, attention_mask=more.pop("attention_mask", mask), labels=labels(), **more)
    found.loss.backward()
    return found.logits.detach().numpy()[ROWS.mask], found.loss.item()


def assert_equal(
    found: tuple[np.ndarray, float, Any], expected: tuple[np.ndarray, float, Any], base: np.ndarray
) -> None:
    """To 1e-5, where the adapter changes the logits by far more than that and every gradient is far from zero."""
    assert np.abs(expected[0] - base).max() > 0.1
    assert jax.tree.structure(found[2]) == jax.tree.structure(expected[2])
    for name, a, b in zip(("logits", "loss"), found, expected, strict=False):
        print(f"{name}: largest difference {np.abs(a - b).max():.1e}")
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5, err_msg=name)
    leaves = zip(jax.tree_util.tree_leaves_with_path(expected[2]), jax.tree.leaves(found[2]), strict=True)
    for (path, gradient), other in leaves:
        name = jax.tree_util.keystr(path)
        print(f"{name}: largest {np.abs(gradient).max():.1e}, largest difference {np.abs(gradient - other).max():.1e}")
        assert np.abs(gradient).reshape(LAYERS, -1).max(axis=1).min() > 1e-3, name
        np.testing.assert_allclose(other, gradient, rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("targets", ["q,v", "q,k,v,o,gate,up,down"])
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
                a = a.reshape(LAYERS, 3, -1, SIZE)
            elif name in PROJECTIONS[:3]:
                b = b.reshape(LAYERS, -1, SIZE, 3)
            found[name] = {"a": a, "b": b}
        return found

    params = as_ours(lambda weight: weight.detach().numpy())
    assert_equal(ours(pair, adapter, params), (*expected, as_ours(lambda weight: weight.grad.numpy())), base)


def rotated(keys: np.ndarray, offset: int) -> np.ndarray:
    """Keys `[..., H]` turned by `offset` positions, as complex numbers: an account of RoPE apart from the package's."""
    low, high = np.split(keys.astype(np.float64), 2, axis=-1)
    frequencies = hf.THETA ** (-np.arange(0, SIZE, 2) / SIZE)
    turned = (low + 1j * high) * np.exp(1j * offset * frequencies)
    return np.concatenate([turned.real, turned.imag], axis=-1).astype(np.float32)


def test_kv_prefix_equals_peft(pair: hf.Pair):
    """PEFT stores keys as they are used, and its text starts at position P: ours, turned by +P (gradients too)."""
    base = hf.torch_logits(pair.torch, ROWS)[ROWS.mask]
    adapter = PrefixTuning(length=LENGTH, layers="all", source="kv")
    shape = (LAYERS, LENGTH, KV_HEADS, SIZE)
    keys, values = np.random.default_rng(3).normal(size=(2, *shape)).astype(np.float32)
    settings = peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=LENGTH, prefix_projection=False)
    model = peft.get_peft_model(pair.torch, settings)
    table = model.prompt_encoder["default"].embedding.weight  # [P, L·2·K·H]
    stored = np.stack([rotated(keys, LENGTH), values], axis=1)  # [L, 2, P, K, H]
    with torch.no_grad():
        table.copy_(torch.tensor(stored).permute(2, 0, 1, 3, 4).reshape(LENGTH, -1))
    expected = theirs(model)
    gradient = table.grad.numpy().reshape(LENGTH, LAYERS, 2, KV_HEADS, SIZE).transpose(2, 1, 0, 3, 4)
    gradients = {"keys": rotated(gradient[0], -LENGTH), "values": gradient[1]}
    assert_equal(ours(pair, adapter, {"keys": keys, "values": values}), (*expected, gradients), base)


def test_hidden_prefix_equals_torch(pair: hf.Pair):
    """PEFT has no prefix of vectors that the frozen projections turn into keys and values: asks torch's autograd."""
    base = hf.torch_logits(pair.torch, ROWS)[ROWS.mask]
    adapter = PrefixTuning(length=LENGTH, layers="all")
    vectors = np.random.default_rng(4).normal(size=(LAYERS, LENGTH, WIDTH)).astype(np.float32)
    learnt = torch.tensor(vectors, requires_grad=True)
    model: LlamaForCausalLM = pair.torch
    cache, count = DynamicCache(), len(ROWS.tokens)
    for number, layer in enumerate(model.model.layers):
        projected = (layer.self_attn.k_proj(learnt[number]), layer.self_attn.v_proj(learnt[number]))
        heads = [part.view(1, LENGTH, KV_HEADS, SIZE).transpose(1, 2).expand(count, -1, -1, -1) for part in projected]
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
