"""The base model of a run: where it lies, its sizes, its tokenizer and its hash; and its weights on a mesh."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxprefix import mesh as meshes
from jaxprefix.hub import model_directory
from jaxprefix.models import decoder, weights
from jaxprefix.models.adapters import Adapter, FullFineTuning
from jaxprefix.models.config import DecoderConfig
from jaxprefix.tokenizer import Tokenizer, load_tokenizer

EMBEDDED = Path(__file__).parent / "babel" / "model"  # the tiny multilingual Llama that the package carries
EMBEDDED_TASK = "babel-qa"


@dataclass(frozen=True)
class Base:
    """A frozen model, before its weights are read."""

    name: str  # as the user gave it
    directory: Path
    config: DecoderConfig
    tokenizer: Tokenizer
    fingerprint: str


def open_base(model: str | None) -> Base:
    """The base that `--model` names; None is the embedded default. ValueError says what is wrong with it."""
    directory = EMBEDDED if model is None else model_directory(model)
    config = DecoderConfig.read(directory)
    hashed = weights.fingerprint(directory)
    tokenizer = load_tokenizer(directory)
    if tokenizer.vocabulary_size > config.vocabulary_size:
        raise ValueError(
            f"{directory}: the tokenizer has {tokenizer.vocabulary_size} tokens, the model {config.vocabulary_size}"
        )
    return Base(model or "embedded", directory, config, tokenizer, hashed)


def load_weights(base: Base, mesh: Mesh, dtype: str) -> decoder.Frozen:
    """The base's weights, sharded over the mesh; dtype "auto" is bfloat16 on accelerators and float32 on CPU."""
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    chosen = ("float32" if on_cpu else "bfloat16") if dtype == "auto" else dtype
    shardings = meshes.shardings(mesh, decoder.shapes(base.config))
    return weights.load(base.directory, base.config, jnp.dtype(chosen), shardings)


def counts(config: DecoderConfig, adapter: Adapter) -> tuple[int, int]:
    """(trainable parameters, all parameters), from the sizes alone."""
    frozen = decoder.shapes(config)
    params = jax.eval_shape(lambda: adapter.init(jax.random.key(0), config, decoder_zeros(frozen)))
    own, held = _size(params), _size(frozen)
    return own, held if isinstance(adapter, FullFineTuning) else held + own


def decoder_zeros(shapes: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def trainable_line(config: DecoderConfig, adapter: Adapter) -> str:
    """`trainable: 1,228,800 of 8,031,490,048 (0.0153%)`"""
    own, total = counts(config, adapter)
    return f"trainable: {own:,} of {total:,} ({100 * own / total:.4f}%)"


def _size(tree: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
