"""The embedded default is a real model: small, readable by transformers, and an adapter learns and transfers on it."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxprefix.evaluation.evaluate import Evaluation, evaluate
from jaxprefix.models import decoder, loading
from jaxprefix.models.adapters import LoRA
from jaxprefix.runs.base_model import EMBEDDED, open_base
from jaxprefix.runs.config import RunConfig
from jaxprefix.tasks.babel import world
from jaxprefix.tasks.babel.languages import ALL
from jaxprefix.tasks.babel.qa import draw
from jaxprefix.train.loop import train

ENGLISH_AND_OTHERS = Evaluation(languages="en,de,es,ru,zh", limit=50, mesh="1x1")


def test_it_is_small():
    assert sum(path.stat().st_size for path in EMBEDDED.iterdir()) < 8e6


def test_its_tokens_are_words_and_give_the_text_back():
    """Few tokens per sentence in every language: rare words are not split into letters."""
    tokenizer = open_base(None).tokenizer
    for language in ALL:
        texts = [world.passage(language, instance.facts) for instance in islice(world.instances("test", "x", draw), 50)]
        counts = []
        for text in texts:
            ids = tokenizer.encode(text)
            assert tokenizer.decode(ids) == text
            counts.append(len(ids))
        assert sum(counts) / len(counts) < 65, language.code


def test_transformers_reads_it_as_it_is():
    """Same logits, float32, over a text of each script."""
    import torch
    from transformers import LlamaForCausalLM

    base = open_base(None)
    ids = base.tokenizer.prompt_ids(
        "Anna is in the kitchen. Анна на кухне. 安娜在厨房里。 ఆన్నా వంటగదిలో ఉంది. アンナさんは台所にいます。"
    )
    theirs = LlamaForCausalLM.from_pretrained(EMBEDDED, dtype=torch.float32)
    with torch.no_grad():
        expected = theirs(torch.tensor([ids])).logits.numpy()
    frozen = loading.load(EMBEDDED, base.config)
    batch = decoder.Batch(jnp.array([ids]), jnp.arange(len(ids))[None])
    found = decoder.logits(frozen, decoder.hidden_states(base.config, frozen, batch))
    np.testing.assert_allclose(found, expected, atol=5e-5)


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> dict:
    run = train(RunConfig(method="none", mesh="1x1"), tmp_path_factory.mktemp("none"), quiet=True)
    return evaluate(run, ENGLISH_AND_OTHERS, quiet=True)["tasks"]["babel-qa"]


NAMES = ("prefix", "llama-adapter", "soft-prompt", "lora", "bottleneck", "ia3", "full")
METHODS: dict[str, RunConfig] = {name: RunConfig(method=name, mesh="1x1") for name in NAMES}
METHODS["dora"] = RunConfig(method="lora", lora=LoRA(dora=True), mesh="1x1")


@pytest.mark.slow  # a prefix learns English in test_learning.py
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_english_and_transfers_it(method: str, seed: int, frozen: dict, tmp_path: Path):
    """And transfers it, by far more than noise: 50 questions have a standard error of at most 0.07."""
    run = train(replace(METHODS[method], seed=seed), tmp_path, quiet=True)
    found = evaluate(run, ENGLISH_AND_OTHERS, quiet=True)["tasks"]["babel-qa"]
    print(f"{method}, seed {seed}: {found['source']['f1']:.3f}, others {found['mean_others']['f1']:.3f}")  # pytest -rP
    assert found["source"]["f1"] > frozen["source"]["f1"] + 0.5
    assert found["mean_others"]["f1"] > frozen["mean_others"]["f1"] + 0.25
