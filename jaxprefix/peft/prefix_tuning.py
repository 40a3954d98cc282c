"""PrefixTuning <-> PEFT's PREFIX_TUNING: keys and values of every layer, with rotated keys.

PEFT stores keys after RoPE, and its text starts at position P; here the text starts at 0. A key at offset n is a
rotation of the key at offset 0, so keys are rotated by +P on export and by -P on import.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from jaxprefix.errors import InputError
from jaxprefix.models.adapters import PrefixTuning
from jaxprefix.models.config import DecoderConfig, layer_range
from jaxprefix.models.decoder import rotations
from jaxprefix.models.hooks import Params
from jaxprefix.peft.settings import Settings, Tensors, agree, check, common, take, whole

# The keys and values [L, P, K, H] of hidden vectors [L, P, D], by the frozen projections
Project = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

READ = (
    "num_virtual_tokens token_dim num_transformer_submodules num_layers num_attention_heads prefix_projection"
).split()
INERT = "encoder_hidden_size init_weights".split()  # settings of the training MLP, which PEFT folds before it saves
REFUSED = {"modules_to_save": "whole modules were trained beside the prefix; only the prefix is supported"}


def to_peft(adapter: PrefixTuning, params: Params, config: DecoderConfig, project: Project) -> tuple[Settings, Tensors]:
    """Keys and values as `prompt_embeddings` [P, L·2·K·H], column ((2·layer + kv)·K + g)·H + j.

    Args:
        params: those of PrefixTuning; an MLP is folded.
        project: the frozen projections, for vectors of source "hidden".

    Raises:
        InputError: if the prefix has its own softmax, or a layer has no prefix: PEFT has neither.
    """
    if adapter.softmax != "joint":
        raise InputError(
            "prefix softmax is 'split': PEFT's PREFIX_TUNING shares one softmax; only a prefix with source "
            "'hidden' can be exported, as ADAPTION_PROMPT"
        )
    if layer_range(adapter.layers, config.layers) != (0, config.layers):
        raise InputError(
            f"prefix layers {adapter.layers!r} leave some of the {config.layers} layers without a prefix, and PEFT's "
            "PREFIX_TUNING gives a prefix to each; train with --prefix.layers all, or over the top layers with "
            "--prefix.softmax split or method llama-adapter and --llama-adapter.gate layer"
        )
    adapter, params = adapter.fold(params)
    keys, values = _keys_and_values(params, project)
    stored = np.stack([_rotate(keys, config, adapter.length), values], axis=1)  # [L, 2, P, K, H]
    table = stored.transpose(2, 0, 1, 3, 4).reshape(adapter.length, -1).astype(np.float32)
    settings = common("PREFIX_TUNING") | {
        "num_virtual_tokens": adapter.length,
        "prefix_projection": False,
        # PEFT computes H as token_dim / num_attention_heads, so both count key/value heads.
        "token_dim": config.kv_heads * config.head_size,
        "num_attention_heads": config.kv_heads,
        "num_layers": config.layers,
        "num_transformer_submodules": 1,
        "encoder_hidden_size": config.kv_heads * config.head_size,
    }
    return settings, {"prompt_embeddings": np.ascontiguousarray(table)}


def from_peft(settings: Settings, tensors: Tensors, config: DecoderConfig) -> tuple[PrefixTuning, Params]:
    """The inverse of `to_peft`: a prefix with source "kv" over all layers.

    Raises:
        InputError: if this package cannot represent the adapter.
    """
    check(settings, READ, INERT, REFUSED)
    agree(settings, "num_transformer_submodules", 1)
    agree(settings, "num_layers", config.layers)
    agree(settings, "num_attention_heads", config.kv_heads)
    agree(settings, "token_dim", config.kv_heads * config.head_size)
    length = whole(settings, "num_virtual_tokens")
    shape = (config.layers, 2, config.kv_heads, config.head_size)
    (table,) = take(tensors, {"prompt_embeddings": (length, int(np.prod(shape)))})
    keys, values = table.reshape(length, *shape).transpose(2, 1, 0, 3, 4)  # each [L, P, K, H]
    keys = _rotate(keys.astype(np.float64), config, -length).astype(np.float32)
    adapter = PrefixTuning(length, layers="all", source="kv")
    return adapter, {"keys": keys, "values": np.ascontiguousarray(values)}


def _keys_and_values(params: Params, project: Project) -> tuple[np.ndarray, np.ndarray]:
    """Keys and values [L, P, K, H] in float64; the base's projections are applied to hidden vectors."""
    keys, values = project(params["hidden"]) if "hidden" in params else (params["keys"], params["values"])
    return np.asarray(keys, np.float64), np.asarray(values, np.float64)


def _rotate(keys: np.ndarray, config: DecoderConfig, offset: int) -> np.ndarray:
    """Keys [L, P, K, H] moved by `offset` positions: rotates the pairs (j, j + H/2) by the angles of that offset."""
    angles = rotations(config, jnp.array([[abs(offset)]]), scaled=False)
    of_layer = list(config.kind_of_layer)
    cosine, sine = (np.asarray(part, np.float64)[of_layer, 0, 0, None, None] for part in angles)
    sine = sine if offset >= 0 else -sine
    low, high = np.split(keys, 2, axis=-1)
    return np.concatenate([low * cosine - high * sine, high * cosine + low * sine], axis=-1)
