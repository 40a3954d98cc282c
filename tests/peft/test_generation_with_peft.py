"""transformers' greedy `generate` with the adapter that we wrote gives our own tokens, for all five types."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import peers
import pytest
import theirs
import torch
from reference import hugging_face as hf

from benchmarks import decoding
from jaxprefix.models.adapters import IA3, Adapter, LlamaAdapter, LoRA, PrefixTuning, SoftPrompt
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.decoder import Batch

pytestmark = [
    pytest.mark.filterwarnings(theirs.IGNORED),
    # It counts positions of a soft prompt itself, rightly, and says so at every token.
    pytest.mark.filterwarnings("ignore:Position ids are not supported:UserWarning"),
]

# At 0.2 the next token depends on far more than the last one, and the best two are not near ties.
KIND = hf.Kind(changes={"initializer_range": 0.2})
METHODS: dict[str, Adapter] = {
    "LORA": LoRA(3, 6.0, "q,k,v,o,gate,up,down"),
    "IA3": IA3(),
    "PREFIX_TUNING": PrefixTuning(5, "all"),
    "ADAPTION_PROMPT": LlamaAdapter(5, "top", gate="layer"),
    "PROMPT_TUNING": SoftPrompt(5, start="random"),
}
ROWS, NEW, END = hf.rows("right", (14, 9, 2)), 16, 96


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> hf.Pair:
    return hf.make(KIND, tmp_path_factory.mktemp("model"))


@partial(jax.jit, static_argnums=(0, 1))
def generate(config: DecoderConfig, adapter: Adapter, params: Any, frozen: Any, batch: Batch) -> tuple:
    weights, hooks = adapter.bind(config, params, frozen)
    return decoding.generate(config, weights, batch, hooks, NEW, (END,))


def their_tokens(model: Any, prompt: np.ndarray) -> list[int]:
    tokens = torch.tensor(prompt[None]).long()
    found = model.generate(
        input_ids=tokens,
        attention_mask=torch.ones_like(tokens),
        max_new_tokens=NEW,
        do_sample=False,
        eos_token_id=END,
        pad_token_id=0,
    )
    return found[0, len(prompt) :].tolist()


# One is quick; the others are slow only because there are many.
MARKS: dict[str, Any] = {name: pytest.mark.slow for name in METHODS} | {
    "PREFIX_TUNING": peers.peft_generates,
    "PROMPT_TUNING": [peers.peft_generates, pytest.mark.slow],
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=MARKS[name]) for name in METHODS])
def test_the_same_tokens(pair: hf.Pair, tmp_path: Path, name: str):
    adapter = METHODS[name]
    params = theirs.drawn(adapter, pair.config)
    batch = Batch(jnp.array(ROWS.tokens), jnp.array(ROWS.positions))
    tokens, counts = jax.device_get(generate(pair.config, adapter, params, pair.frozen, batch))
    model = theirs.load(pair, theirs.export(pair, adapter, params, tmp_path / "out"))
    prompts = [row[mask] for row, mask in zip(ROWS.tokens, ROWS.mask, strict=True)]
    plain = [their_tokens(pair.torch, prompt) for prompt in prompts]
    found = [their_tokens(model, prompt) for prompt in prompts]
    assert found != plain and all(len(set(row)) > 3 for row in found)  # no row repeats itself from the start
    for row, wanted in enumerate(found):
        text = wanted[: wanted.index(END)] if END in wanted else wanted
        assert tokens[row, : counts[row]].tolist() == text, f"row {row}"
