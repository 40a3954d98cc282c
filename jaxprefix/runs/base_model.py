"""The base model of a run: where it lies, its sizes, its tokenizer and its hash; and its weights on a mesh."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxprefix.errors import InputError
from jaxprefix.io.hub import model_directory
from jaxprefix.models import adapter_init, decoder, int8, loading, sharding, weights
from jaxprefix.models.adapters import Adapter, FullFineTuning, SoftPrompt, Sum
from jaxprefix.models.config import DecoderConfig
from jaxprefix.text.tokenizer import Tokenizer, load_tokenizer

EMBEDDED = Path(__file__).parents[1] / "babel" / "model"  # the tiny multilingual Llama that the package carries
EMBEDDED_TASK = "babel-qa"


@dataclass(frozen=True)
class BaseModel:
    """A frozen model, before its weights are read."""

    name: str  # as the user gave it
    directory: Path
    config: DecoderConfig
    tokenizer: Tokenizer
    fingerprint: str


def open_base(model: str | None) -> BaseModel:
    """The base that `--model` names; None is the embedded default. InputError says what is wrong with it."""
    directory = EMBEDDED if model is None else model_directory(model)
    config = DecoderConfig.read(directory)
    hashed = weights.fingerprint(directory)
    tokenizer = load_tokenizer(directory)
    if tokenizer.vocabulary_size > config.vocabulary_size:
        raise InputError(
            f"{directory}: the tokenizer has {tokenizer.vocabulary_size} tokens, the model {config.vocabulary_size}"
        )
    return BaseModel(model or "embedded", directory, config, tokenizer, hashed)


def load_weights(base: BaseModel, mesh: Mesh, dtype: str) -> decoder.Frozen:
    """The base's weights, sharded over the mesh, in the types of `frozen_shapes`."""
    like = abstract_weights(base, mesh, dtype)
    return loading.load(base.directory, base.config, like, jax.tree.map(lambda leaf: leaf.sharding, like))


def abstract_weights(base: BaseModel, mesh: Mesh, dtype: str) -> decoder.Frozen:
    """The same before they are read: ShapeDtypeStructs with where each will lie."""
    shapes = frozen_shapes(base.config, dtype, on_cpu=mesh.devices.flat[0].platform == "cpu")
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        shapes,
        sharding.param_shardings(mesh, shapes),
    )


def frozen_shapes(config: DecoderConfig, dtype: str, on_cpu: bool) -> decoder.Frozen:
    """The weights as ShapeDtypeStructs: dtype "auto" is bfloat16 on accelerators and float32 on CPU; "int8" is that
    with the projections in eight bits.
    """
    wide = ("float32" if on_cpu else "bfloat16") if dtype in ("auto", "int8") else dtype
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.dtype(wide)), decoder.shapes(config))
    return int8.shapes(shapes) if dtype == "int8" else shapes


def max_text_tokens(config: DecoderConfig, adapter: Adapter, max_length: int) -> int:
    """The tokens that a row may have: at most `max_length`, and a soft prompt takes positions before them."""
    members = [member for _, member in adapter.members] if isinstance(adapter, Sum) else [adapter]
    before = sum(member.length for member in members if isinstance(member, SoftPrompt))
    return min(max_length, config.max_positions - before)


def init_token_ids(tokenizer: Tokenizer, seed: int) -> adapter_init.InitTokens:
    """The ids that a method starts from: drawn from the vocabulary, or those of a text (without BOS), repeated."""

    def tokens(start: str, length: int) -> list[int]:
        if start == "vocabulary":
            return np.random.default_rng(seed).integers(0, tokenizer.vocabulary_size, length).tolist()
        ids = tokenizer.encode(start.removeprefix("text:"))
        if len(ids) > length:
            raise InputError(
                f"start {start!r} has {len(ids)} tokens for {length} slots; shorten it or raise the length"
            )
        return [ids[place % len(ids)] for place in range(length)]

    return tokens


def parameter_counts(config: DecoderConfig, adapter: Adapter) -> tuple[int, int]:
    """(trainable parameters, all parameters), from the sizes alone."""
    own, held = _size(adapter_init.abstract_params(adapter, config)), _size(decoder.shapes(config))
    return own, held if isinstance(adapter, FullFineTuning) else held + own


def trainable_line(config: DecoderConfig, adapter: Adapter) -> str:
    """`trainable: 1,228,800 of 8,031,490,048 (0.0153%)`"""
    own, total = parameter_counts(config, adapter)
    return f"trainable: {own:,} of {total:,} ({100 * own / total:.4f}%)"


def _size(tree: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
