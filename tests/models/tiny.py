"""One tiny decoder in float32 with random weights, and helpers for tests."""

import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxprefix.models import adapter_init, decoder
from jaxprefix.models.adapters import Adapter
from jaxprefix.models.config import DecoderConfig, Rope
from jaxprefix.models.hooks import NEVER, Hooks

CONFIG = DecoderConfig(
    vocabulary_size=61,
    hidden_size=16,
    intermediate_size=24,
    layers=4,
    heads=4,
    kv_heads=2,
    head_size=6,  # 4 heads of 6 are no hidden size of 16
    norm_epsilon=1e-5,
    rope=Rope(100.0),
    max_positions=64,
)

GEMMA_NORMS = tuple(f"{place}_layernorm" for place in "input post_attention pre_feedforward post_feedforward".split())
LENGTHS = (11, 7)
TOKENS = np.random.default_rng(0).integers(0, CONFIG.vocabulary_size, (len(LENGTHS), max(LENGTHS)))
REAL = np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None]
POSITIONS = np.where(REAL, np.arange(max(LENGTHS)), NEVER)


def normal(seed: int, *shape: int, std: float = 1.0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(0, std, shape), jnp.float32)


def weights(config: DecoderConfig = CONFIG) -> Any:
    """Random weights ten times larger than usual, so that attention is not uniform; norms are random too."""
    random = np.random.default_rng(1)

    def leaf(path: tuple, shape: jax.ShapeDtypeStruct) -> jax.Array:
        if "norm" in path[-1].key:
            return jnp.asarray(random.uniform(0.5, 1.5, shape.shape) - config.norm_offset, jnp.float32)
        return jnp.asarray(random.normal(0, 0.2, shape.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(leaf, decoder.shapes(config))


FROZEN = weights()


def fresh(adapter: Adapter, config: DecoderConfig = CONFIG, frozen: Any = FROZEN) -> Any:
    """Its parameters as training starts with them; the vocabulary's first tokens stand for sampled ones."""
    return jax.jit(lambda key: adapter_init.init_params(adapter, key, config, frozen, lambda _, length: range(length)))(
        jax.random.key(0)
    )


def noisy(
    adapter: Adapter, std: float = 0.5, config: DecoderConfig = CONFIG, frozen: Any = FROZEN, seed: int = 20
) -> Any:
    """Random values in every parameter: zeros at the start would hide errors."""
    shapes = adapter_init.abstract_params(adapter, config)
    leaves, tree = jax.tree.flatten(shapes)
    return jax.tree.unflatten(tree, [normal(seed, *leaf.shape, std=std) for seed, leaf in enumerate(leaves, seed)])


def several(adapter: Adapter, count: int, config: DecoderConfig = CONFIG, frozen: Any = FROZEN) -> list[Any]:
    """Random parameters of `count` adapters: other numbers, for a norm may hide another scale."""
    return [noisy(adapter, 0.7, config, frozen, seed=100 * number) for number in range(1, count + 1)]


def together(members: Sequence[Any]) -> Any:
    """Parameters of several adapters of one form, as `bind` takes them with `rows`."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)


def batch(tokens: Any = TOKENS, positions: Any = POSITIONS) -> decoder.Batch:
    return decoder.Batch(jnp.asarray(tokens, jnp.int32), jnp.asarray(positions, jnp.int32))


def row(tokens: Any) -> decoder.Batch:
    """One row without padding."""
    return batch(np.asarray(tokens)[None], np.arange(len(tokens))[None])


@partial(jax.jit, static_argnums=0)
def _logits(config: DecoderConfig, frozen: Any, rows: decoder.Batch, hooks: Hooks) -> jax.Array:
    return decoder.logits(frozen, decoder.hidden_states(config, frozen, rows, hooks))


def logits(
    hooks: Hooks | None = None, rows: decoder.Batch | None = None, config: DecoderConfig = CONFIG, frozen: Any = None
) -> np.ndarray:
    """`[B, T, V]`, padding included."""
    rows = batch() if rows is None else rows
    return np.asarray(_logits(config, FROZEN if frozen is None else frozen, rows, Hooks() if hooks is None else hooks))


def adapted(
    adapter: Adapter, params: Any, config: DecoderConfig = CONFIG, frozen: Any = FROZEN, **options: Any
) -> np.ndarray:
    """Logits with the adapter, bound with `options`."""
    weights, hooks = adapter.bind(config, params, frozen, **options)
    return logits(hooks, config=config, frozen=weights)


def packed(rows: Sequence[Sequence[Sequence[int]]], time: int | None = None) -> tuple[jax.Array, jax.Array]:
    """The choices of each row one after the other, `[B, T]`, and their lengths, `[B, C]`, for scoring.choices."""
    lengths = np.array([[len(choice) for choice in row] for row in rows], np.int32)
    tokens = np.zeros((len(rows), time or lengths.sum(axis=1).max()), np.int32)
    for place, row in zip(tokens, rows, strict=True):
        ids = list(itertools.chain.from_iterable(row))
        place[: len(ids)] = ids
    return jnp.asarray(tokens), jnp.asarray(lengths)
