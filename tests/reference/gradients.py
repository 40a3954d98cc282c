"""What tests against PEFT share: rows, and the logits, loss and gradients of ours and of a torch model on them."""

from typing import Any

import hugging_face as hf
import jax
import jax.numpy as jnp
import numpy as np
import torch

from jaxprefix.models import decoder
from jaxprefix.models.adapters import Adapter
from jaxprefix.train.batches import TrainBatch
from jaxprefix.train.step import summed_loss

ROWS = hf.rows("right", lengths=(12, 9, 12))  # PEFT counts positions itself, so only right padding can be compared
FIRST_LEARNT = 4  # the tokens before it are the prompt
# peft 0.21 asks transformers 5 by an old name.
IGNORED = "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"


def labels() -> torch.Tensor:
    """What transformers wants: the tokens themselves, -100 where nothing is learnt."""
    learnt = ROWS.mask & (np.arange(ROWS.tokens.shape[1]) >= FIRST_LEARNT)
    return torch.tensor(np.where(learnt, ROWS.tokens, -100)).long()


def batch() -> TrainBatch:
    """The same rows as the trainer sees them (one micro-batch, without its dimension)."""
    count, time = ROWS.tokens.shape
    at = np.broadcast_to(np.arange(FIRST_LEARNT - 1, time - 1), (count, time - FIRST_LEARNT))
    leaves = (ROWS.tokens, ROWS.mask.sum(1), at, ROWS.tokens[:, FIRST_LEARNT:], ROWS.mask[:, FIRST_LEARNT:] * 1.0)
    return jax.tree.map(jnp.asarray, TrainBatch(*leaves))


def ours(pair: hf.Pair, adapter: Adapter, params: Any) -> tuple[np.ndarray, float, Any]:
    """Logits at the real tokens, the mean loss over learnt tokens, its gradients."""
    rows = batch()

    def run(params: Any, frozen: Any) -> tuple[jax.Array, Any]:
        def loss(params: Any) -> jax.Array:
            total = summed_loss(pair.config, adapter, "dots", params, frozen, rows, None)
            return total / jnp.sum(rows.loss_mask)

        weights, hooks = adapter.bind(pair.config, params, frozen)
        states = decoder.hidden_states(pair.config, weights, rows.inputs, hooks)
        return decoder.logits(weights, states), jax.value_and_grad(loss)(params)

    logits, (loss, gradients) = jax.jit(run)(jax.tree.map(jnp.asarray, params), pair.frozen)
    return np.asarray(logits)[ROWS.mask], float(loss), hf.numpy(gradients)


def theirs(model: Any, **more: Any) -> tuple[np.ndarray, float]:
    """The same of a torch model; its gradients are then in its parameters."""
    tokens, mask = torch.tensor(ROWS.tokens).long(), torch.tensor(ROWS.mask).long()
    found = model(input_ids=tokens, attention_mask=more.pop("attention_mask", mask), labels=labels(), **more)
    found.loss.backward()
    own = found.logits[:, -tokens.shape[1] :]  # without the positions of a prompt, which PEFT gives too
    return own.detach().numpy()[ROWS.mask], found.loss.item()


def assert_equal(
    found: tuple[np.ndarray, float, Any], expected: tuple[np.ndarray, float, Any], base: np.ndarray
) -> None:
    """To 1e-5, where the adapter changes the logits by far more and the gradients of no layer, or slot, are near 0."""
    assert np.abs(expected[0] - base).max() > 0.1
    assert jax.tree.structure(found[2]) == jax.tree.structure(expected[2])
    for name, a, b in zip(("logits", "loss"), found, expected, strict=False):
        print(f"{name}: largest difference {np.abs(a - b).max():.1e}")
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5, err_msg=name)
    leaves = zip(jax.tree_util.tree_leaves_with_path(expected[2]), jax.tree.leaves(found[2]), strict=True)
    for (path, gradient), other in leaves:
        name = jax.tree_util.keystr(path)
        print(f"{name}: largest {np.abs(gradient).max():.1e}, largest difference {np.abs(gradient - other).max():.1e}")
        assert np.abs(gradient).reshape(len(gradient), -1).max(axis=1).min() > 1e-3, name
        np.testing.assert_allclose(other, gradient, rtol=0, atol=1e-5, err_msg=name)
