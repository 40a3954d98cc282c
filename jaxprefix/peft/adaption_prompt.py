"""LlamaAdapter, and a prefix with a softmax of its own, <-> PEFT's ADAPTION_PROMPT.

PEFT adapts the top layers and has one gate per layer, without tanh. A prefix with softmax "split" has a gate of 1.
"""

import numpy as np

from jaxprefix.errors import InputError
from jaxprefix.io.messages import short_repr
from jaxprefix.models.adapters import LlamaAdapter, PrefixTuning
from jaxprefix.models.config import DecoderConfig, layer_range
from jaxprefix.models.hooks import Params
from jaxprefix.peft.settings import Settings, Tensors, check, common, take, whole

READ = ("adapter_len", "adapter_layers", "target_modules")


def to_peft(adapter: LlamaAdapter | PrefixTuning, params: Params, config: DecoderConfig) -> tuple[Settings, Tensors]:
    """Params `{"hidden": [n, P, D], "gate": [n]}` as `adaption_prompt` [1, P, D] and `adaption_gate` [1] of each layer.

    Raises:
        InputError: if the gates are per head, the layers are not the top ones, the prefix has source "kv", or PEFT
            itself cannot adapt this base.
    """
    _check_base(config)
    first, last = layer_range(adapter.layers, config.layers)
    if last != config.layers:
        raise InputError(
            f"{adapter.method} layers {adapter.layers!r} end below the top layer, and PEFT's ADAPTION_PROMPT adapts "
            f"the top layers; train with --{adapter.method}.layers top:N"
        )
    if isinstance(adapter, PrefixTuning):
        if adapter.source != "hidden":
            raise InputError(
                "prefix source is 'kv' with softmax 'split': PEFT has no keys and values with a softmax of their own; "
                "train with --prefix.source hidden, or with --prefix.softmax joint and --prefix.layers all"
            )
        adapter, params = adapter.fold(params)
        gate = np.ones(last - first)
    else:
        if adapter.gate != "layer":
            raise InputError(
                "llama-adapter gate is 'head': PEFT's ADAPTION_PROMPT has one gate per layer; "
                "train with --llama-adapter.gate layer"
            )
        gate = np.asarray(params["gate"], np.float64)
        gate = np.tanh(gate) if adapter.activation == "tanh" else gate
    hidden = np.asarray(params["hidden"], np.float32)
    tensors = {}
    for index, layer in enumerate(range(first, last)):
        prompt_name, gate_name = _names(layer)
        tensors[prompt_name] = np.ascontiguousarray(hidden[index][None])
        tensors[gate_name] = gate[index : index + 1].astype(np.float32)
    settings = common("ADAPTION_PROMPT") | {
        "adapter_len": adapter.length,
        "adapter_layers": last - first,
        "target_modules": "self_attn",
    }
    return settings, tensors


def from_peft(settings: Settings, tensors: Tensors, config: DecoderConfig) -> tuple[LlamaAdapter, Params]:
    """The inverse of `to_peft`, with gates without tanh: tanh cannot reach a gate of 1 or more.

    Raises:
        InputError: if this package cannot represent the adapter.
    """
    check(settings, READ, (), {})
    _check_base(config)
    if settings.get("target_modules") not in (None, "self_attn"):
        raise InputError(f"target_modules is {short_repr(settings['target_modules'])}; expected 'self_attn'")
    length, count = whole(settings, "adapter_len"), whole(settings, "adapter_layers")
    if count > config.layers:
        raise InputError(f"adapter_layers is {count}; this base has {config.layers} layers")
    names = [_names(layer) for layer in range(config.layers - count, config.layers)]
    shapes = {prompt: (1, length, config.hidden_size) for prompt, _ in names} | {gate: (1,) for _, gate in names}
    take(tensors, shapes)
    hidden = np.concatenate([tensors[prompt] for prompt, _ in names])
    gate = np.concatenate([tensors[gate] for _, gate in names])
    adapter = LlamaAdapter(length, f"top:{count}", gate="layer", activation="identity")
    return adapter, {"hidden": hidden, "gate": gate}


def _names(layer: int) -> tuple[str, str]:
    module = f"base_model.model.model.layers.{layer}.self_attn"
    return f"{module}.adaption_prompt", f"{module}.adaption_gate"


def _check_base(config: DecoderConfig) -> None:
    if not config.is_llama:
        raise InputError("PEFT's ADAPTION_PROMPT works on Llama and Mistral alone, not on this family of models")
    width = config.heads * config.head_size
    if width != config.hidden_size:
        raise InputError(
            f"PEFT's ADAPTION_PROMPT fails on this base: its heads are {width} wide together, but its hidden size is "
            f"{config.hidden_size}; LORA and PROMPT_TUNING work on it, and PREFIX_TUNING over all layers"
        )
