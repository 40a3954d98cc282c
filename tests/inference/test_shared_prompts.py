"""A shared prompt, computed once: scores and answers are those of the whole prompts, for every kind of adapter."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small

from jaxprefix.distributed.mesh import make_mesh
from jaxprefix.inference.batching import Request, plan_buckets
from jaxprefix.inference.engine import generate, score
from jaxprefix.inference.model import Model
from jaxprefix.models import adapter_init
from jaxprefix.models.adapters import Adapter, LlamaAdapter, LoRA, NoAdapter, PrefixTuning, SoftPrompt, Sum
from jaxprefix.runs.base_model import load_weights, open_base

SIZE, LONGEST = 4, 10
SUM = Sum((("prefix", PrefixTuning(length=3, layers="1:3")), ("soft-prompt", SoftPrompt(2)), ("lora", LoRA(2))))
GATED = LlamaAdapter(4, "top", gate="layer")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A window of 24 tokens hides the beginning of the shared prompts from their ends, but never the prefix."""
    sizes = {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": 24}
    return small.write_model(tmp_path_factory.mktemp("shared") / "model", scale=3, **sizes)


def opened(folder: Path, adapter: Adapter, adapters: int = 1, mesh: str = "1x1") -> Model:
    base, made = open_base(str(folder)), make_mesh(mesh)
    random = np.random.default_rng(0)
    leading = (adapters,) if adapters > 1 else ()
    params = jax.tree.map(
        lambda leaf: jnp.array(0.3 * random.normal(size=(*leading, *leaf.shape)), jnp.float32),
        adapter_init.abstract_params(adapter, base.config),
    )
    frozen = load_weights(base, made, "float32", for_inference=True)
    return Model(base, adapter, params, frozen, made, 128, chat=False, multi_adapter=adapters > 1)


def asked(adapters: int = 1) -> list[Request]:
    """Two shared prompts of other lengths; some rows follow only a part of theirs, one is nothing but its beginning."""
    random = np.random.default_rng(3)

    def ids(length: int) -> list[int]:
        return random.integers(3, 400, length).tolist()

    requests = []
    for number, shared in enumerate((ids(41), ids(30))):
        for row in range(7):
            begun = shared if row < 5 else shared[:17]
            prompt = begun + ids(int(random.integers(1, 12))) if row != 4 else begun
            choices = tuple(ids(int(length)) for length in random.integers(1, 5, 3))
            requests.append(Request(prompt, choices, (row + number) % adapters, tuple(shared)))
    return requests


def plain(requests: list[Request]) -> list[Request]:
    return [replace(request, shared_prompt=()) for request in requests]


def scored(model: Model, requests: list[Request]) -> np.ndarray:
    found = dict(pair for part in score(model, requests, SIZE) for pair in part)
    return np.array([found[index].logprobs for index in range(len(requests))])


def answers(model: Model, requests: list[Request]) -> list[str]:
    found = dict(pair for part in generate(model, requests, SIZE, LONGEST) for pair in part)
    return [found[index] for index in range(len(requests))]


def test_the_part_of_a_prompt_that_is_shared():
    request = Request([1, 2, 3, 4], shared_prompt=(1, 2, 9))
    assert request.shared == 2 and request.rest == [3, 4]
    assert Request([1, 2], shared_prompt=(1, 2, 9)).rest == [2]  # the last token gives the answer's first
    assert Request([1, 2]).rest == [1, 2] and Request([1, 2]).cache_key is None


@pytest.mark.parametrize(
    "adapter",
    [
        pytest.param(NoAdapter(), marks=pytest.mark.slow),
        SUM,
        pytest.param(GATED, marks=pytest.mark.slow),
    ],
    ids=["none", "sum", "gated"],
)
def test_scores_and_answers_are_those_of_whole_prompts(folder: Path, adapter: Adapter):
    model, requests = opened(folder, adapter), asked()
    whole = scored(model, plain(requests))
    np.testing.assert_allclose(scored(model, requests), whole, atol=1e-5, rtol=0)
    assert np.ptp(whole) > 1  # random weights that matter
    texts = answers(model, requests)
    assert texts == answers(model, plain(requests)) and len(set(texts)) > 10


def test_adapters_have_caches_of_their_own(folder: Path):
    """Two adapters answer in one evaluation; a cache of the other adapter would change the scores."""
    model, requests = opened(folder, PrefixTuning(length=3), adapters=2), asked(adapters=2)
    np.testing.assert_allclose(scored(model, requests), scored(model, plain(requests)), atol=1e-5, rtol=0)


@pytest.mark.slow
def test_a_mesh_gives_the_same_scores_and_answers(folder: Path):
    model, sharded, requests = opened(folder, SUM), opened(folder, SUM, mesh="2x2"), asked()
    np.testing.assert_allclose(scored(sharded, requests), scored(model, requests), atol=2e-5, rtol=0)
    assert answers(sharded, requests) == answers(model, requests)


def test_each_shared_prompt_is_computed_once_and_compiles_once(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Rests of several lengths are in several buckets, and the buckets of a shared prompt follow each other."""
    model, requests, computed = opened(folder, NoAdapter()), asked(), []
    whole = model.programs.prefill_shared

    def counted(*arguments: Any) -> Any:
        computed.append(1)
        return whole(*arguments)

    monkeypatch.setitem(model.programs.__dict__, "prefill_shared", counted)
    scored(model, requests)
    assert len(computed) == 2 and whole._cache_size() == 1
    buckets = plan_buckets(requests, SIZE)
    assert {bucket.shared_len for bucket in buckets} == {48}
    assert model.programs.score_choices._cache_size() == len({(part.prompt_len, part.choices_len) for part in buckets})
    assert all(bucket.shared_len == 0 for bucket in plan_buckets(plain(requests), SIZE))
