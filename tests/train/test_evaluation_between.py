"""An evaluation between two steps does not change the second step: no method keeps a cache that training would read."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from models import tiny

from benchmarks import decoding
from jaxprefix.models.adapters import Adapter, LlamaAdapter, PrefixTuning, SoftPrompt
from jaxprefix.tasks.encoding import Encoded
from jaxprefix.train.batches import TrainBatch, buckets, collate
from jaxprefix.train.step import State, held_out_loss, train_step

METHODS: dict[str, Adapter] = {
    "prefix": PrefixTuning(3, "1:3"),
    "llama-adapter": LlamaAdapter(3, "1:3"),
    "soft-prompt": SoftPrompt(3, start="random"),
}
CONFIG, FROZEN = tiny.CONFIG, tiny.FROZEN


def batch(seed: int) -> TrainBatch:
    random = np.random.default_rng(seed)
    rows = [
        Encoded(random.integers(2, 60, prompt).tolist(), random.integers(2, 60, response).tolist(), cut=False)
        for prompt, response in ((7, 2), (3, 5))
    ]
    return jax.tree.map(jnp.asarray, collate(rows, buckets(rows)[-1], len(rows), pad=0))


@pytest.mark.parametrize(
    "name", ["prefix", *(pytest.param(name, marks=pytest.mark.slow) for name in ("llama-adapter", "soft-prompt"))]
)
def test_an_evaluation_in_between_changes_no_step(name: str):
    """Equal bit for bit, also the gradients: they are the moments of an optimizer that sums them."""
    adapter = METHODS[name]
    optimizer = optax.chain(optax.trace(decay=1.0), optax.scale(-0.1))
    step: Any = jax.jit(train_step(CONFIG, adapter, optimizer, "dots", jax.random.key(0)))
    params = tiny.noisy(adapter)
    start = State(params, optimizer.init(params), jnp.int32(0))

    first, _ = step(start, FROZEN, batch(1))
    without, metrics = step(first, FROZEN, batch(2))

    again, _ = step(start, FROZEN, batch(1))
    loss, _ = jax.jit(held_out_loss(CONFIG, adapter))(again.params, FROZEN, batch(3))
    hooks = adapter.bind(CONFIG, again.params, FROZEN)[1]
    generate = jax.jit(decoding.generate, static_argnums=(0, 4, 5))
    tokens, _ = generate(CONFIG, FROZEN, tiny.batch(), hooks, 4, (0,))
    between, after = step(again, FROZEN, batch(2))

    assert jnp.isfinite(loss) and tokens.shape == (2, 4)
    assert jax.tree.all(jax.tree.map(np.array_equal, (without, metrics), (between, after)))
    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.tree.map(jnp.subtract, between.params, again.params)):
        assert float(jnp.abs(leaf).max()) > 1e-4, path
