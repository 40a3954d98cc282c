"""What tests of the exchange with PEFT share: random adapters on both sides, and what each model says of rows."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import peft
import torch
from reference import hugging_face as hf

from jaxprefix.models import adapter_init, decoder
from jaxprefix.models.adapters import Adapter, LoRA
from jaxprefix.models.config import DecoderConfig
from jaxprefix.peft.convert import to_peft
from jaxprefix.peft.files import write_adapter

ROWS = hf.rows("right", lengths=(12, 9, 12))  # PEFT counts positions itself, so only right padding can be compared
# The transformers-5 names that peft 0.21 asks for by their old ones.
IGNORED = "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"


def drawn(adapter: Adapter, config: DecoderConfig, scale: float = 1.0, seed: int = 3) -> Any:
    """Random parameters in the shapes of a fresh adapter: nothing is zero, so nothing is hidden.

    LoRA's are smaller: at 1 its terms outweigh the base, and rounding grows through the layers to 3e-5; at 0.2 it
    was 1.2e-5 on one processor.
    """
    scale = 0.1 * scale if isinstance(adapter, LoRA) else scale
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: (scale * random.normal(size=leaf.shape)).astype(np.float32),
        adapter_init.abstract_params(adapter, config),
    )


@partial(jax.jit, static_argnums=(0, 1))
def _logits(config: DecoderConfig, adapter: Adapter, params: Any, frozen: Any, batch: decoder.Batch) -> jax.Array:
    weights, hooks = adapter.bind(config, params, frozen)
    return decoder.logits(weights, decoder.hidden_states(config, weights, batch, hooks))


def our_logits(config: DecoderConfig, frozen: Any, adapter: Adapter, params: Any, rows: hf.Rows = ROWS) -> np.ndarray:
    """Ours at the real tokens."""
    batch = decoder.Batch(jnp.array(rows.tokens), jnp.array(rows.positions))
    return np.asarray(_logits(config, adapter, params, frozen, batch))[rows.mask]


def their_logits(model: Any, rows: hf.Rows = ROWS) -> np.ndarray:
    """Theirs at the real tokens; a prompt's own positions, which PEFT gives too, are dropped."""
    with torch.no_grad():
        found = model(input_ids=torch.tensor(rows.tokens).long(), attention_mask=torch.tensor(rows.mask).long()).logits
    return found[:, -rows.tokens.shape[1] :].float().numpy()[rows.mask]


def export(pair: hf.Pair, adapter: Adapter, params: Any, directory: Path, as_cartridge: bool = False) -> Path:
    """Ours, written as PEFT reads it."""
    settings, tensors = to_peft(adapter, params, pair.config, lambda hidden: hf.project(pair, hidden), as_cartridge)
    write_adapter(directory, settings | {"base_model_name_or_path": str(pair.directory)}, tensors, "hash", "card")
    return directory


def load(pair: hf.Pair, directory: Path) -> Any:
    """A fresh torch model with the adapter, as anyone would load it."""
    return peft.PeftModel.from_pretrained(hf.read(type(pair.torch), pair.directory), str(directory)).eval()


def save(pair: hf.Pair, settings: peft.PeftConfig, directory: Path) -> Any:
    """Theirs: a random PEFT adapter, saved by PEFT; returns the model that it was saved from."""
    model = peft.get_peft_model(hf.read(type(pair.torch), pair.directory), settings)
    scale = 0.2 if isinstance(settings, peft.LoraConfig) else 1.0
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=scale)
    model.save_pretrained(str(directory))
    return model.eval()
