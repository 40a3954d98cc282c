"""SoftPrompt <-> PEFT's PROMPT_TUNING: the same vectors at the same positions.

Ours are like rows of the embedding table. PEFT's are like its outputs, which Gemma scales.
"""

import numpy as np

from jaxprefix.models.adapters import SoftPrompt
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.hooks import Params
from jaxprefix.peft.settings import Settings, Tensors, agree, check, common, take, whole

READ = "num_virtual_tokens token_dim num_transformer_submodules num_layers num_attention_heads".split()
# How the vectors were initialized.
INERT = "prompt_tuning_init prompt_tuning_init_text tokenizer_name_or_path tokenizer_kwargs".split()
REFUSED = {"modules_to_save": "whole modules were trained beside the prompt; only the prompt is supported"}


def to_peft(adapter: SoftPrompt, params: Params, config: DecoderConfig) -> tuple[Settings, Tensors]:
    """Params `{"prompt": [P, D]}` as `prompt_embeddings` [P, D]."""
    prompt = np.asarray(params["prompt"], np.float32) * np.float32(config.embedding_scale)
    settings = common("PROMPT_TUNING") | {
        "num_virtual_tokens": adapter.length,
        "token_dim": config.hidden_size,
        "num_transformer_submodules": 1,
        "num_layers": config.layers,
        "num_attention_heads": config.heads,
    }
    return settings, {"prompt_embeddings": np.ascontiguousarray(prompt)}


def from_peft(settings: Settings, tensors: Tensors, config: DecoderConfig) -> tuple[SoftPrompt, Params]:
    """The inverse of `to_peft`; InputError if this package cannot represent the adapter."""
    check(settings, READ, INERT, REFUSED)
    agree(settings, "num_transformer_submodules", 1)
    agree(settings, "token_dim", config.hidden_size)
    length = whole(settings, "num_virtual_tokens")
    (prompt,) = take(tensors, {"prompt_embeddings": (length, config.hidden_size)})
    return SoftPrompt(length, start="random"), {"prompt": prompt / np.float32(config.embedding_scale)}
