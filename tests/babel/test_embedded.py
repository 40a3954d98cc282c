"""The embedded default is a real model: small, readable by transformers, and an adapter learns and transfers on it."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxprefix.base import EMBEDDED, open_base
from jaxprefix.evaluation.evaluate import Evaluation, evaluate
from jaxprefix.models import decoder, weights
from jaxprefix.run import RunConfig
from jaxprefix.train.loop import train

ENGLISH_AND_OTHERS = Evaluation(languages="en,de,es,ru,zh", limit=50)


def test_it_is_small():
    assert sum(path.stat().st_size for path in EMBEDDED.iterdir()) < 8e6


def test_transformers_reads_it_as_it_is():
    """Same logits, float32, over a text of each script."""
    import torch
    from transformers import LlamaForCausalLM

    base = open_base(None)
    ids = base.tokenizer.prompt_ids("Anna is in the kitchen. Анна на кухне. 安娜在厨房。")
    theirs = LlamaForCausalLM.from_pretrained(EMBEDDED, dtype=torch.float32)
    with torch.no_grad():
        expected = theirs(torch.tensor([ids])).logits.numpy()
    frozen = weights.load(EMBEDDED, base.config)
    batch = decoder.Batch(jnp.array([ids]), jnp.arange(len(ids))[None])
    found = decoder.logits(frozen, decoder.hidden(base.config, frozen, batch))
    np.testing.assert_allclose(found, expected, atol=5e-5)


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> dict:
    run = train(RunConfig(method="none"), tmp_path_factory.mktemp("none"), quiet=True)
    return evaluate(run, ENGLISH_AND_OTHERS, quiet=True)["tasks"]["babel-qa"]


@pytest.mark.parametrize("method", ["prefix", "lora"])
def test_an_adapter_learns_english_and_transfers(method: str, frozen: dict, tmp_path: Path):
    """Measured over three seeds: English F1 0.65 to 0.70 (prefix), 0.95 to 0.96 (LoRA), frozen 0.16."""
    run = train(RunConfig(method=method), tmp_path, quiet=True)
    found = evaluate(run, ENGLISH_AND_OTHERS, quiet=True)["tasks"]["babel-qa"]
    assert found["source"]["f1"] > frozen["source"]["f1"] + 0.3
    assert found["mean_others"]["f1"] > frozen["mean_others"]["f1"] + 0.1
