"""Tiny random transformers models of every kind that the decoder must equal, on disk and read by our own loader."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from transformers import (
    ApertusConfig,
    ApertusForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
)

from jaxprefix.models import loading
from jaxprefix.models.adapters import slots
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.hooks import NEVER

Rewrite = Callable[[dict[str, Any]], None]

# Base 100 spreads the four frequencies of a head over all three regimes of llama3: kept, blended, stretched.
THETA = 100.0
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": THETA,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
SIZES = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "rope_parameters": {"rope_type": "default", "rope_theta": THETA},
    "initializer_range": 0.1,  # at 0.02 the logits are so small that wrong numbers would pass
}


@dataclass(frozen=True)
class Kind:
    """A way that models and their files differ."""

    family: str = "llama"
    changes: Mapping[str, Any] = field(default_factory=dict)  # to SIZES
    dtype: torch.dtype = torch.float32  # on disk
    shard: str = "1GB"  # the largest size of a file
    rewrite: Rewrite | None = None  # changes config.json by hand after saving


def old_place(values: dict[str, Any]) -> None:
    """config.json as transformers 4 wrote it."""
    parameters = values.pop("rope_parameters")
    values["rope_theta"] = parameters.pop("rope_theta")
    values["rope_scaling"] = None if parameters == {"rope_type": "default"} else parameters


def older_name(values: dict[str, Any]) -> None:
    """config.json as written before Llama 3.1: the kind of scaling is called `type`."""
    old_place(values)
    values["rope_scaling"]["type"] = values["rope_scaling"].pop("rope_type")


def old_gemma(values: dict[str, Any]) -> None:
    """config.json of a Gemma 3 as transformers 4 wrote it."""
    whole, local = (values["rope_parameters"][kind] for kind in ("full_attention", "sliding_attention"))
    values |= {"rope_theta": whole.pop("rope_theta"), "rope_local_base_freq": local["rope_theta"]}
    values |= {"rope_scaling": whole, "rope_parameters": None}


def nested(values: dict[str, Any]) -> dict[str, Any]:
    """config.json of a model with an image encoder beside this text model."""
    inner = {name: values.pop(name) for name in [*values]}
    inner.pop("architectures")
    return {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "model_type": "gemma3",
        "text_config": inner,
        "vision_config": {"hidden_size": 8},
    }


GEMMA3: dict[str, Any] = {
    "num_key_value_heads": 1,
    "head_dim": 12,
    "sliding_window": 5,
    "hidden_activation": "gelu_pytorch_tanh",
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "query_pre_attn_scalar": 12,
    "tie_word_embeddings": True,
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 1000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": THETA},
    },
}
SMOLLM3 = {"pad_token_id": None, "tie_word_embeddings": True}
CLASSES = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "smollm3": (SmolLM3Config, SmolLM3ForCausalLM),
    "gemma3": (Gemma3TextConfig, Gemma3ForCausalLM),
    "apertus": (ApertusConfig, ApertusForCausalLM),
}
LINEAR = {"rope_parameters": {"rope_type": "linear", "rope_theta": THETA, "factor": 4.0}}
YARN = {"rope_type": "yarn", "rope_theta": THETA, "factor": 4.0, "original_max_position_embeddings": 16}
KINDS = {
    "full heads": Kind(changes={"num_key_value_heads": 4}),
    "grouped heads": Kind(),
    "one key head": Kind(changes={"num_key_value_heads": 1}),
    "heads wider than hidden": Kind(changes={"head_dim": 12}),
    "heads narrower than hidden": Kind(changes={"head_dim": 4}),
    "tied": Kind(changes={"tie_word_embeddings": True}),
    "llama3 rope": Kind(changes={"rope_parameters": LLAMA3}),
    "llama3 rope, old place": Kind(changes={"rope_parameters": LLAMA3}, rewrite=old_place),
    "linear rope": Kind(changes=LINEAR),
    "linear rope, old name": Kind(changes=LINEAR, rewrite=older_name),
    "yarn": Kind("qwen2", {"rope_parameters": YARN}),
    "yarn, old name": Kind("qwen2", {"rope_parameters": YARN}, rewrite=older_name),
    "yarn, every setting": Kind(
        changes={
            "rope_parameters": YARN
            | {"beta_fast": 5.0, "beta_slow": 0.5, "mscale": 1.5, "mscale_all_dim": 0.5, "truncate": False}
        }
    ),
    "yarn, attention factor": Kind(changes={"rope_parameters": YARN | {"attention_factor": 1.7}}),
    "mistral window": Kind("mistral", {"sliding_window": 5}),
    "mistral window, old place": Kind("mistral", {"sliding_window": 5}, rewrite=old_place),
    "mistral without window": Kind("mistral", {"sliding_window": None, "head_dim": 12}),
    "sharded": Kind(shard="20KB"),
    "bfloat16 on disk": Kind(dtype=torch.bfloat16),
    "float16 on disk": Kind(dtype=torch.float16),
    "bfloat16 mistral in shards": Kind("mistral", {"sliding_window": 5}, dtype=torch.bfloat16, shard="20KB"),
    "qwen2": Kind("qwen2"),
    "qwen2, windows above": Kind(
        "qwen2", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1, "tie_word_embeddings": True}
    ),
    "qwen3": Kind("qwen3", {"head_dim": 12, "tie_word_embeddings": True}, rewrite=old_place),
    "smollm3": Kind("smollm3", SMOLLM3 | {"num_hidden_layers": 5}),
    "smollm3, listed": Kind("smollm3", SMOLLM3 | {"no_rope_layers": [0, 1, 0], "tie_word_embeddings": False}),
    "gemma3": Kind("gemma3", GEMMA3),
    "gemma3, old place": Kind(
        "gemma3",
        GEMMA3 | {"num_hidden_layers": 7, "query_pre_attn_scalar": 20, "layer_types": None},
        rewrite=lambda values: values.pop("layer_types"),
    ),
    "gemma3, long": Kind(
        "gemma3",
        GEMMA3
        | {
            "sliding_window": 40,  # longer than all rows: a window acts on PEFT's prefix
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
            },
        },
        rewrite=old_gemma,
    ),
    "apertus": Kind("apertus", {"hidden_act": "xielu", "rope_parameters": LLAMA3}),
    "apertus, old place": Kind(
        "apertus", {"hidden_act": "xielu", "rope_parameters": LLAMA3, "num_key_value_heads": 1}, rewrite=old_place
    ),
    "gemma3 with images": Kind("gemma3", GEMMA3, rewrite=lambda values: values.update(nested(values))),
}


@dataclass(frozen=True)
class Pair:
    """One model, theirs and ours, in float32."""

    torch: Any
    config: DecoderConfig
    frozen: Any
    directory: Path


def project(pair: Pair, hidden: Any) -> tuple[Any, Any]:
    """The keys and values of a hidden prefix, for `to_peft`."""
    layers = pair.frozen["layers"]
    return slots.project_kv(pair.config, layers, slots.scaled(pair.config, layers, jnp.asarray(hidden)))


def make(kind: Kind, directory: Path, seed: int = 0) -> Pair:
    """A random model of that kind, written by transformers and read by jaxprefix."""
    config_class, model_class = CLASSES[kind.family]
    torch.manual_seed(seed)
    # Deep copies: transformers writes into the rope_parameters that it is given.
    sizes = json.loads(json.dumps(SIZES | dict(kind.changes)))
    model = model_class(config_class(**sizes)).eval().requires_grad_(False)
    for name, weight in model.named_parameters():
        if "norm" in name:
            weight.uniform_(0.5, 1.5)  # all ones would hide two norms in each other's place
            weight.sub_(1.0 if kind.family == "gemma3" else 0.0)
        if "bias" in name or "act_fn" in name:
            weight.uniform_(-0.5, 0.5)
    model.to(kind.dtype).save_pretrained(directory, max_shard_size=kind.shard)
    if kind.rewrite:
        path = directory / "config.json"
        values = json.loads(path.read_text())
        kind.rewrite(values)
        path.write_text(json.dumps(values))
    config = DecoderConfig.read(directory)
    return Pair(read(model_class, directory), config, loading.load(directory, config), directory)


def read(model_class: Any, directory: Path, dtype: torch.dtype = torch.float32) -> Any:
    """Theirs, as anyone would read it from disk. (`model.to(bfloat16)` would round RoPE's frequencies too.)"""
    model = model_class.from_pretrained(directory, dtype=dtype, attn_implementation="eager")
    return model.eval().requires_grad_(False)


@dataclass(frozen=True)
class Rows:
    """Token rows of several lengths, padded on one side."""

    tokens: np.ndarray  # [B, T]
    mask: np.ndarray  # [B, T], True where a token is real

    @property
    def positions(self) -> np.ndarray:
        """As the decoder wants them: counted from 0, NEVER in padding."""
        return np.where(self.mask, self.mask.cumsum(1) - 1, NEVER).astype(np.int32)


def rows(side: str, lengths: tuple[int, ...] = (14, 9, 1), vocabulary: int = 97, seed: int = 1) -> Rows:
    """Random rows, padded with random tokens: whatever stands in padding must not matter."""
    count, time = len(lengths), max(lengths)
    tokens = np.random.default_rng(seed).integers(0, vocabulary, (count, time)).astype(np.int32)
    mask = np.arange(time) < np.array(lengths)[:, None]
    return Rows(tokens, mask if side == "right" else mask[:, ::-1].copy())


def torch_logits(model: Any, batch: Rows) -> np.ndarray:
    """Theirs, `[B, T, V]` in float32, with explicit positions."""
    positions = np.where(batch.mask, batch.positions, 0)
    with torch.no_grad():
        found = model(
            input_ids=torch.tensor(batch.tokens).long(),
            attention_mask=torch.tensor(batch.mask).long(),
            position_ids=torch.tensor(positions).long(),
        )
    return found.logits.float().numpy()


def numpy(tree: Any) -> Any:
    return jax.tree.map(np.asarray, tree)
