"""Greedy generation equals transformers' `generate`, token for token: Llama, and Mistral past its window (law 9)."""

from functools import partial
from typing import Any

import hugging_face as hf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from benchmarks import decoding
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.decoder import Batch
from jaxprefix.models.hooks import Hooks

# At 0.2 the next token depends on far more than the last one; the window of 5 is shorter than every text but one.
LLAMA = hf.Kind(changes={"initializer_range": 0.2})
MISTRAL = hf.Kind("mistral", {"initializer_range": 0.2, "sliding_window": 5})
QWEN3 = hf.Kind("qwen3", {"initializer_range": 0.2})
SMOLLM3 = hf.Kind("smollm3", hf.SMOLLM3 | {"initializer_range": 0.2, "tie_word_embeddings": False})
GEMMA3 = hf.Kind("gemma3", hf.GEMMA3 | {"initializer_range": 0.2, "tie_word_embeddings": False})
LENGTHS, NEW = (14, 9, 1, 6), 16


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(LLAMA, id="llama", marks=pytest.mark.slow),
        pytest.param(MISTRAL, id="mistral"),
        pytest.param(QWEN3, id="qwen3", marks=pytest.mark.slow),
        pytest.param(SMOLLM3, id="smollm3", marks=pytest.mark.slow),
        pytest.param(GEMMA3, id="gemma3"),
    ],
)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> hf.Pair:
    return hf.make(request.param, tmp_path_factory.mktemp("model"))


def theirs(pair: hf.Pair, prompt: np.ndarray, end: int) -> list[int]:
    """The new tokens of one prompt alone, without padding; the end token last, where it came."""
    tokens = torch.tensor(prompt[None]).long()
    with torch.no_grad():
        found = pair.torch.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=NEW,
            do_sample=False,
            eos_token_id=end,
            pad_token_id=0,
        )
    return found[0, len(prompt) :].tolist()


@partial(jax.jit, static_argnums=(0, 3))
def ours(config: DecoderConfig, frozen: Any, batch: Batch, ends: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    return decoding.generate(config, frozen, batch, Hooks(), NEW, ends)


def test_greedy_generation(pair: hf.Pair):
    """Rows of different lengths in one batch; then with an end token that some rows meet, each somewhere else."""
    rows = hf.rows("right", LENGTHS)
    batch = Batch(jnp.array(rows.tokens), jnp.array(rows.positions))
    prompts = [tokens[mask] for tokens, mask in zip(rows.tokens, rows.mask, strict=True)]
    free = [theirs(pair, prompt, end=96) for prompt in prompts]
    assert all(len(set(tokens)) > 4 for tokens in free)  # no row repeats itself from the start
    for end in (96, free[0][5]):
        tokens, counts = jax.device_get(ours(pair.config, pair.frozen, batch, (end,)))
        for row, wanted in enumerate(free):
            text = wanted[: wanted.index(end)] if end in wanted else wanted
            assert tokens[row, : counts[row]].tolist() == text, f"row {row}, end {end}"
            assert (tokens[row, counts[row] :] == end).all()
    assert counts[0] <= 5 < max(counts)
    assert theirs(pair, prompts[0], end)[:-1] == tokens[0, : counts[0]].tolist()
