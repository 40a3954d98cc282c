"""Torch models that hold our adapters: through PEFT where it has the method, else through a few lines of torch."""

from pathlib import Path
from typing import Any

import hugging_face as hf
import numpy as np
import peft
import torch
from models import tiny
from torch.nn.functional import pad, silu
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, eager_mask
from transformers.models.llama.modeling_llama import eager_attention_forward

from jaxprefix.models import loading
from jaxprefix.models.adapters import (
    Adapter,
    BottleneckAdapter,
    FullFineTuning,
    LlamaAdapter,
    LoRA,
    NoAdapter,
    PrefixTuning,
    Sum,
)
from jaxprefix.peft.convert import to_peft
from jaxprefix.peft.files import write_adapter

# The std of random parameters: at 1 they would dominate the base, and rounding errors would grow through the layers.
SMALLER = {LoRA: 0.2, BottleneckAdapter: 0.2}
FULL_STD = 0.05  # of changes to weights


def drawn(pair: hf.Pair, adapter: Adapter, folder: Path, seed: int) -> Any:
    """Random parameters: nothing is zero, so nothing is hidden."""
    if isinstance(adapter, FullFineTuning):
        model = hf.read(type(pair.torch), pair.directory)
        generator = torch.Generator().manual_seed(seed)
        for weight in model.parameters():
            weight.add_(FULL_STD * torch.randn(weight.shape, generator=generator))
        model.save_pretrained(folder)
        return loading.load(folder, pair.config)
    if isinstance(adapter, Sum):
        return {name: drawn(pair, member, folder, seed) for name, member in adapter.members}
    return tiny.noisy(adapter, SMALLER.get(type(adapter), 1.0), pair.config, pair.frozen, seed)


def model_of(pair: hf.Pair, adapter: Adapter, params: Any, folder: Path) -> Any:
    """A fresh torch model that holds the adapter; `folder` is the one that `drawn` was given."""
    if isinstance(adapter, FullFineTuning):
        return hf.read(type(pair.torch), folder)
    model = hf.read(type(pair.torch), pair.directory)
    if isinstance(adapter, NoAdapter):
        return model
    if isinstance(adapter, BottleneckAdapter):
        return with_bottlenecks(model, params)
    if isinstance(adapter, Sum):  # PEFT cannot combine the two: the prefix is added to a model with the LoRA
        members = dict(adapter.members)
        model = with_peft(pair, model, members["lora"], params["lora"], folder)
        return with_slots(pair, model, params["prefix"])
    if isinstance(adapter, PrefixTuning | LlamaAdapter) and not peft_has(pair, adapter):
        return with_slots(pair, model, params)
    return with_peft(pair, model, adapter, params, folder)


def peft_has(pair: hf.Pair, adapter: PrefixTuning | LlamaAdapter) -> bool:
    """PEFT's prefix has all layers and passes out of a window's sight; its adaption prompt has one gate a layer."""
    sizes = pair.config
    if isinstance(adapter, PrefixTuning):
        return adapter.layers == "all" and sizes.window is None
    return adapter.gate == "layer" and sizes.heads * sizes.head_size == sizes.hidden_size


def with_peft(pair: hf.Pair, model: Any, adapter: Adapter, params: Any, folder: Path) -> Any:
    settings, tensors = to_peft(adapter, params, pair.config, lambda hidden: hf.project(pair, hidden))
    write_adapter(folder, settings | {"base_model_name_or_path": str(pair.directory)}, tensors, "hash", "card")
    return peft.PeftModel.from_pretrained(model, str(folder)).eval()


def with_bottlenecks(model: Any, params: Any) -> Any:
    """x + up(silu(down(x))) on what a block gives, before it joins the residual stream."""

    def residual(part: dict[str, np.ndarray], number: int) -> Any:
        down, up = (torch.tensor(np.asarray(part[name][number])) for name in ("down", "up"))
        return lambda module, inputs, outputs: outputs + silu(outputs @ down.T) @ up.T

    for number, layer in enumerate(model.model.layers):
        blocks = {"after_attention": layer.self_attn.o_proj, "after_feed_forward": layer.mlp.down_proj}
        for seam, part in params.items():
            blocks[seam].register_forward_hook(residual(part, number))
    return model


def with_slots(pair: hf.Pair, model: Any, params: Any) -> Any:
    """Slots of the top layers, projected by the unadapted weights, and gated where the method has gates."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model  # within PEFT's
    inner.set_attn_implementation("slots")
    hidden, gates = np.asarray(params["hidden"]), params.get("gate")
    first = pair.config.layers - len(hidden)
    for place, vectors in enumerate(hidden):
        base = pair.torch.model.layers[first + place].self_attn
        keys, values = (
            project(torch.tensor(vectors)).unflatten(-1, (-1, base.head_dim)) for project in (base.k_proj, base.v_proj)
        )
        keys = base.k_norm(keys) if hasattr(base, "k_norm") else keys
        keys, values = keys.transpose(0, 1), values.transpose(0, 1)
        gate = None if gates is None else torch.tensor(np.tanh(np.asarray(gates[place]))).expand(pair.config.heads)
        inner.model.layers[first + place].self_attn.slots = (keys, values, gate)
    return model


def attend(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float, **_: Any
) -> tuple[torch.Tensor, Any]:
    """transformers' eager attention, and slots [K, P, H] that every query sees, whatever the window."""
    slots = getattr(module, "slots", None)
    if slots is None:
        return eager_attention_forward(module, query, key, value, attention_mask, scaling)
    keys, values = (part.expand(len(query), -1, -1, -1) for part in slots[:2])
    if slots[2] is None:
        mask = pad(attention_mask, (keys.shape[2], 0))  # it is added: zeros are seen
        key, value = torch.cat([keys, key], dim=2), torch.cat([values, value], dim=2)
        return eager_attention_forward(module, query, key, value, mask, scaling)
    read, shares = eager_attention_forward(module, query, key, value, attention_mask, scaling)
    gated = eager_attention_forward(module, query, keys, values, None, scaling)[0]
    return read + slots[2][:, None] * gated, shares


AttentionInterface.register("slots", attend)
AttentionMaskInterface.register("slots", eager_mask)
