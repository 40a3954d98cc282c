"""Runs texts through an adapted model in a few shapes. One vector per sentence and layer is kept."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from jaxprefix.distributed import mesh as meshes
from jaxprefix.inference.batching import Request, plan_buckets
from jaxprefix.inference.engine import prompt_batch
from jaxprefix.inference.model import Model
from jaxprefix.io.terminal import progress
from jaxprefix.models.decoder import Batch, Frozen
from jaxprefix.models.hooks import Params
from jaxprefix.models.states import LayerStates, layer_states


def read_states(
    model: Model,
    ids: Sequence[list[int]],
    batch_size: int,
    name: str,
    quiet: bool,
    lens_tokens: Int[np.ndarray, "B C"] | None = None,
    groups: Int[np.ndarray, " B"] | None = None,
    **wanted: Any,
) -> LayerStates:
    """`layer_states` of all rows of ids, in NumPy. The rows are in the dimension B.

    Counts of neurons are summed over the rows of a group, so that B is the number of groups for them.

    Args:
        name: what the progress bar shows.
        groups: the group of each row, counted from 0, for `neurons`.
        wanted: `pooling`, `attention`, `loss` and `neurons` of `layer_states`.
    """
    run = _program(model, wanted)
    requests, result, active = [Request(row) for row in ids], None, None
    with progress(quiet) as bar:
        task = bar.add_task(name, total=len(ids), rate="texts")
        for bucket in plan_buckets(requests, batch_size):
            for start in range(0, len(bucket.indices), batch_size):
                indices = np.array(bucket.indices[start : start + batch_size])
                padded = np.resize(indices, batch_size)  # a last batch repeats its rows
                batch = prompt_batch(model, [requests[index] for index in padded], bucket.prompt_len, batch_size)
                tokens = None if lens_tokens is None else model.shard(lens_tokens[padded].astype(np.int32))
                states = jax.device_get(run(model.params, model.frozen, batch, tokens))
                counts, states = states.active, states.replace(active=None)  # type: ignore[attr-defined]
                if counts is not None and groups is not None:
                    if active is None:
                        active = np.zeros((len(counts), groups.max() + 1, counts.shape[-1]), np.int64)
                    np.add.at(np.moveaxis(active, 1, 0), groups[indices], np.moveaxis(counts, 1, 0)[: len(indices)])
                result = result or jax.tree.map(partial(_empty, len(ids)), states)
                jax.tree.map(lambda target, leaf, at=indices: _store(target, leaf, at), result, states)
                bar.update(task, advance=len(indices))
    assert result is not None
    return result.replace(active=active)  # type: ignore[attr-defined]


def _program(model: Model, wanted: Mapping[str, Any]) -> Callable[..., LayerStates]:
    """The jitted `layer_states`. Models that share `loaded` and differ only in their parameters have the same one."""
    config, adapter, mesh = model.base.config, model.adapter, model.mesh

    @jax.jit
    @partial(meshes.with_mesh, mesh)
    def run(params: Params, frozen: Frozen, batch: Batch, lens_tokens: jax.Array | None) -> LayerStates:
        weights, hooks = adapter.bind(config, params, frozen)
        return layer_states(config, weights, batch, hooks, lens_tokens=lens_tokens, **wanted)

    return model.loaded.program(("probe", config, adapter, mesh, *sorted(wanted.items())), lambda: run)


def _empty(rows: int, leaf: np.ndarray) -> np.ndarray:
    """An array for all rows; only the loss has them in its first dimension."""
    shape = (rows,) if leaf.ndim == 1 else (leaf.shape[0], rows, *leaf.shape[2:])
    return np.empty(shape, leaf.dtype)


def _store(target: np.ndarray, leaf: np.ndarray, indices: np.ndarray) -> None:
    if leaf.ndim == 1:
        target[indices] = leaf[: len(indices)]
    else:
        target[:, indices] = leaf[:, : len(indices)]
