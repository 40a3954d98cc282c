"""The base model of a run: its directory, sizes, tokenizer and hash, and its weights on a mesh."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree

from jaxprefix.errors import InputError
from jaxprefix.io.hub import expanded, model_directory
from jaxprefix.io.messages import truncate
from jaxprefix.io.terminal import note
from jaxprefix.models import adapter_init, decoder, int8, loading, sharding, weights
from jaxprefix.models.adapters import Adapter, FullFineTuning
from jaxprefix.models.checkpoint_files import ignored_file
from jaxprefix.models.config import DecoderConfig, notes
from jaxprefix.models.layers import unstack
from jaxprefix.models.parameters import HEAD
from jaxprefix.text.chat_template import DEFAULT_DATE, parse_date
from jaxprefix.text.tokenizer import Tokenizer, load_tokenizer

EMBEDDED = Path(__file__).parents[1] / "babel" / "model"  # the tiny multilingual Llama that the package includes
EMBEDDED_TASK = "babel-qa"


@dataclass(frozen=True)
class BaseModel:
    """A frozen model whose weights are not loaded yet."""

    name: str  # as the user wrote it
    directory: Path
    config: DecoderConfig
    tokenizer: Tokenizer
    fingerprint: str
    path: str | None = None  # the absolute path of a directory that the user wrote; None for other bases

    def with_chat_date(self, day: str | None) -> "BaseModel":
        """This base with another date in its chat template; None is the one without a run."""
        date = DEFAULT_DATE if day is None else parse_date(day)
        return replace(self, tokenizer=replace(self.tokenizer, chat_date=date))


def open_base(model: str | None, path: str | None = None) -> BaseModel:
    """The base that `--model` names; None is the embedded model. InputError if it cannot be used.

    What its files leave out, or have without effect, is printed. `path` is the absolute path that run.json has beside
    the name. If it is still a directory, it is used for a relative name, which so works in any working directory.
    """
    if model is None or path is None or expanded(model).is_absolute() or not Path(path).is_dir():
        path = str(expanded(model).absolute()) if model and expanded(model).is_dir() else None
    given = expanded(model).absolute() if model else None
    directory = EMBEDDED if model is None else model_directory(model if path in (None, str(given)) else path)
    config = _stored_config(directory)
    hashed = weights.fingerprint(directory, config)
    tokenizer = load_tokenizer(directory)
    if tokenizer.vocabulary_size > config.vocabulary_size:
        raise InputError(f"{directory}: {_beyond(tokenizer, config.vocabulary_size)}")
    return BaseModel(model or "embedded", directory, config, tokenizer, hashed, path)


def read_config(directory: Path) -> DecoderConfig:
    """The configuration in the directory. Notes about its config.json are printed."""
    config = DecoderConfig.read(directory)
    for line in notes(directory):
        note(line)
    return config


def _stored_config(directory: Path) -> DecoderConfig:
    """`read_config`, corrected by what the checkpoint stores. Notes about its files are printed."""
    config = read_config(directory)
    if line := ignored_file(directory, weights.files_of(directory, config)):
        note(line)
    actual = weights.with_stored_head(config, directory)
    if actual != config:
        note(
            f"{directory}: tie_word_embeddings is true, but {HEAD} is not the embedding; "
            "the stored head is used, as in transformers"
        )
    return actual


def _beyond(tokenizer: Tokenizer, rows: int) -> str:
    """What is wrong with a tokenizer that has more tokens than the embedding has rows, and what to do."""
    beyond = [tokenizer.backend.token_of(index) or "" for index in range(rows, tokenizer.vocabulary_size)]
    names = ", ".join(truncate(token, 40) for token in beyond[:3]) + (", ..." if len(beyond) > 3 else "")
    return (
        f"the tokenizer has {tokenizer.vocabulary_size} tokens, the model {rows}, so these have no embedding: {names}; "
        "remove them from the tokenizer's files, or add rows with transformers' resize_token_embeddings and save the "
        "model"
    )


def load_weights(base: BaseModel, mesh: Mesh, dtype: str, for_inference: bool = False) -> decoder.Frozen:
    """The weights of the base, sharded over the mesh, with the dtypes of `frozen_shapes`.

    For training they are stacked over layers, for inference they are not (models/layers.py).
    """
    shapes = abstract_weights(base, mesh, dtype, for_inference)
    return loading.load(base.directory, base.config, shapes, jax.tree.map(lambda leaf: leaf.sharding, shapes))


def abstract_weights(base: BaseModel, mesh: Mesh, dtype: str, for_inference: bool = False) -> decoder.Frozen:
    """The same weights as ShapeDtypeStructs with shardings, without loading them."""
    shapes = frozen_shapes(base.config, dtype, on_cpu=mesh.devices.flat[0].platform == "cpu")
    shapes = jax.eval_shape(unstack, shapes) if for_inference else shapes
    return jax.tree.map(
        lambda leaf, placement: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=placement),
        shapes,
        sharding.param_shardings(mesh, shapes),
    )


def frozen_shapes(config: DecoderConfig, dtype: str, on_cpu: bool) -> decoder.Frozen:
    """The weights as ShapeDtypeStructs.

    dtype "auto" is bfloat16 on accelerators and float32 on CPU. "int8" is the same with quantized projections.
    """
    wide = ("float32" if on_cpu else "bfloat16") if dtype in ("auto", "int8") else dtype
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.dtype(wide)), decoder.shapes(config))
    return int8.shapes(shapes) if dtype == "int8" else shapes


def max_text_tokens(config: DecoderConfig, adapter: Adapter, max_length: int) -> int:
    """The most tokens that a row may have: `max_length`, or the positions that a soft prompt leaves, if fewer."""
    return min(max_length, config.max_positions - adapter.prompt_length)


def init_token_ids(tokenizer: Tokenizer, seed: int) -> adapter_init.InitTokens:
    """The ids that a method starts from: sampled from the vocabulary, or a text (without BOS), repeated to fill up."""

    def tokens(start: str, length: int) -> list[int]:
        if start == "vocabulary":
            return np.random.default_rng(seed).integers(0, tokenizer.vocabulary_size, length).tolist()
        ids = tokenizer.encode(start.removeprefix("text:"))
        if len(ids) > length:
            raise InputError(
                f"start {start!r} has {len(ids)} tokens for {length} virtual tokens; shorten it or raise the length"
            )
        return [ids[index % len(ids)] for index in range(length)]

    return tokens


def parameter_counts(config: DecoderConfig, adapter: Adapter) -> tuple[int, int]:
    """(trainable parameters, all parameters), from the shapes alone."""
    trainable, frozen = _size(adapter_init.abstract_params(adapter, config)), _size(decoder.shapes(config))
    return trainable, frozen if isinstance(adapter, FullFineTuning) else frozen + trainable


def trainable_line(config: DecoderConfig, adapter: Adapter) -> str:
    """`trainable: 1,228,800 of 8,031,490,048 (0.0153%)`"""
    trainable, total = parameter_counts(config, adapter)
    return f"trainable: {trainable:,} of {total:,} ({100 * trainable / total:.4f}%)"


def _size(tree: PyTree) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
