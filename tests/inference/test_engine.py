"""The engine: a batch that is kept full says what each row alone says, draws are transformers', shapes are few."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
import torch
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from jaxprefix.distributed.mesh import make_mesh
from jaxprefix.errors import InputError
from jaxprefix.inference import batching
from jaxprefix.inference.answer import stream
from jaxprefix.inference.batching import Request, plan_buckets
from jaxprefix.inference.engine import generate, score
from jaxprefix.inference.model import Model
from jaxprefix.models import adapter_init, decode
from jaxprefix.models.adapters import PrefixTuning
from jaxprefix.models.sampling import Sampling, sample, top_logits
from jaxprefix.runs.base_model import load_weights, open_base
from jaxprefix.runs.loaded import Loaded
from jaxprefix.text.tokenizer import Tokenizer

ADAPTER = PrefixTuning(length=3)
LONGEST, SIZE = 12, 4
DRAWN = Sampling(1.0, top_k=20, top_p=0.9, seed=7)


def open_(folder: Path, mesh: str) -> Model:
    base, made = open_base(str(folder)), make_mesh(mesh)
    frozen = load_weights(base, made, "float32")
    shapes = adapter_init.abstract_params(ADAPTER, base.config)
    random = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: jnp.array(random.normal(size=leaf.shape), jnp.float32), shapes)
    return Model(base, ADAPTER, params, frozen, made, 96, chat=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.write_model(tmp_path_factory.mktemp("engine") / "model", scale=10)


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    """Its end tokens are two that it often generates, so that answers have many lengths."""
    model, generated, whole = open_(folder, "1x1"), [], Tokenizer.decode

    def recorded(self: Tokenizer, ids: list[int]) -> str:
        generated.append(ids)
        return whole(self, ids)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tokenizer, "decode", recorded)
        list(generate(model, prompts(), SIZE, LONGEST))
    common = np.bincount(np.concatenate([np.array(ids[3:], int) for ids in generated])).argsort()[-2:].tolist()
    return replace(model, base=replace(model.base, tokenizer=replace(model.base.tokenizer, eos=tuple(common))))


def prompts(count: int = 23) -> list[Request]:
    random = np.random.default_rng(3)
    return [Request(random.integers(3, 60, length).tolist()) for length in random.integers(2, 60, count)]


def answers(model: Model, asked: list[Request], size: int, sampling: Sampling, stop: tuple[str, ...] = ()) -> list[str]:
    found = dict(pair for part in generate(model, asked, size, LONGEST, sampling, stop) for pair in part)
    return [found[place] for place in range(len(asked))]


@pytest.mark.parametrize("sampling", [pytest.param(Sampling(), marks=pytest.mark.slow), DRAWN], ids=str)
def test_a_full_batch_answers_as_each_row_alone(model: Model, sampling: Sampling):
    """23 prompts on their way through 4 rows; rows end at different times and are taken by others."""
    asked = prompts()
    together = answers(model, asked, SIZE, sampling)
    assert together == answers(model, asked, 1, sampling)
    assert len({len(text) for text in together}) > 4 and len(set(together)) > 12
    if sampling.temperature:
        assert together != answers(model, asked, SIZE, replace(sampling, seed=8))
        twice = answers(model, [*asked[:2], asked[0]], SIZE, sampling)
        assert twice[:2] == together[:2] and twice[2] != twice[0]  # the same prompt again is another draw


def test_rows_are_refilled_while_others_continue(model: Model, monkeypatch: pytest.MonkeyPatch):
    """Fewer steps are computed than if every batch waited for its longest answer."""
    asked = sorted(prompts(), key=lambda request: len(request.prompt))
    monkeypatch.setattr(batching, "QUANTILES", (1.0,))
    monkeypatch.setattr(batching, "LENGTH_MULTIPLE", 64)
    steps, whole = [], decode.extend_cache

    def counted(*arguments: Any) -> Any:
        jax.debug.callback(lambda: steps.append(1))
        return whole(*arguments)

    def count(model: Model, requests: list[Request], size: int) -> int:
        steps.clear()
        answers(model, requests, size, Sampling())
        jax.effects_barrier()
        return len(steps)

    monkeypatch.setattr(decode, "extend_cache", counted)
    fresh = replace(model, loaded=Loaded())
    lengths = [count(fresh, [request], 1) for request in asked]
    in_step = sum(max(lengths[start : start + SIZE]) for start in range(0, len(lengths), SIZE))
    assert len(set(lengths)) > 3 and sum(lengths) / SIZE <= count(fresh, asked, SIZE) < 0.8 * in_step


def test_a_text_ends_an_answer_wherever_its_tokens_are_cut(model: Model):
    """Every stop of two characters that occurs: the answer is what stands before the first one."""
    asked = prompts()
    free = answers(model, asked, SIZE, Sampling())
    ends = ("qz", free[0][3:5], free[5][2:5])
    found = answers(model, asked, SIZE, Sampling(), ends)
    expected = [text[: min((text.find(end) for end in ends if end in text), default=None)] for text in free]
    assert found == expected and found != free


def test_a_stream_is_the_answer_in_pieces(model: Model):
    """Also where a text ends it: nothing of that text is shown before."""
    endless = replace(model, base=replace(model.base, tokenizer=replace(model.base.tokenizer, eos=(2**30,))))
    texts = [row["prompt"] for row in small.rows(6)]
    asks = [[Request(model.base.tokenizer.prompt_ids(text + "\n"))] for text in texts]
    whole, text, asked = max(
        ((answers(endless, ask, 1, Sampling())[0], text, ask) for text, ask in zip(texts, asks, strict=True)),
        key=lambda each: len(each[0]),
    )
    assert len(whole) > 12
    for stop in ((), (whole[5:8],), (whole[6:7], whole[8:11])):
        pieces = list(stream(endless, text, 0, LONGEST, Sampling(), stop))
        assert "".join(pieces) == answers(endless, asked, 1, Sampling(), stop)[0]
        assert not stop or "".join(pieces) == whole[: min(whole.find(end) for end in stop)]
        assert stop or len(pieces) > 3


def test_one_compilation_per_shape(model: Model):
    """Answers: one a bucket of prompt lengths. Choices: one a bucket of prompt and choice lengths."""
    fresh = replace(model, loaded=Loaded())
    answers(fresh, prompts(), SIZE, Sampling())
    buckets = {part.prompt_len for part in plan_buckets(prompts(), SIZE)}
    assert fresh.programs.step._cache_size() == len(buckets) == 2
    random = np.random.default_rng(4)
    asked = [
        replace(each, choices=tuple(random.integers(3, 60, n).tolist() for n in random.integers(1, 5, 4)))
        for each in prompts(40)
    ]
    list(score(fresh, asked, SIZE))
    shapes = {(part.prompt_len, part.choices_len) for part in plan_buckets(asked, SIZE)}
    assert fresh.programs.score_choices._cache_size() == len(shapes) <= 9


def test_a_mesh_gives_the_same_answers_and_compiles_as_often(model: Model, folder: Path):
    sharded = open_(folder, "2x2")
    sharded = replace(sharded, base=model.base)
    asked = prompts(12)
    assert answers(sharded, asked, SIZE, Sampling()) == answers(model, asked, SIZE, Sampling())
    assert sharded.programs.step._cache_size() == len({part.prompt_len for part in plan_buckets(asked, SIZE)})


def test_the_tokens_that_can_be_sampled_are_those_of_transformers():
    logits = np.random.default_rng(0).normal(size=(64, 50)).astype(np.float32) * 3
    for temperature, top_k, top_p in ((0.7, 0, 1.0), (1.3, 5, 1.0), (0.1, 0, 0.75), (1.0, 0, 0.9), (2.0, 10, 0.5)):
        scores = TemperatureLogitsWarper(temperature)(None, torch.tensor(logits))
        scores = TopKLogitsWarper(top_k)(None, scores) if top_k else scores
        scores = TopPLogitsWarper(top_p)(None, scores) if top_p < 1 else scores
        found = np.asarray(top_logits(jnp.array(logits) / temperature, Sampling(temperature, top_k, top_p)))
        assert np.array_equal(np.isinf(found), np.isinf(scores.numpy()))
        np.testing.assert_allclose(found, scores.numpy(), rtol=1e-6)


def test_samples_follow_the_probabilities():
    """40,000 seeds: each token as often as softmax says, within five standard errors."""
    logits, count = jnp.array([0.0, 1.0, 2.0, -1.0, 3.0]), 40_000
    rows = jnp.broadcast_to(logits, (count, 5))
    drawn = sample(rows, Sampling(1.5), jnp.arange(count, dtype=jnp.uint32), jnp.zeros(count, jnp.int32))
    expected = np.asarray(jax.nn.softmax(logits / 1.5))
    shares = np.bincount(np.asarray(drawn), minlength=5) / count
    assert np.all(np.abs(shares - expected) < 5 * np.sqrt(expected * (1 - expected) / count))


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"temperature": -1.0}, "temperature is -1.0; expected 0"),
        ({"temperature": 1.0, "top_p": 0.0}, "top-p is 0.0; expected a share"),
        ({"temperature": 1.0, "top_k": -1}, "top-k is -1; expected 0"),
        ({"top_p": 0.5}, "top-p 0.5 at temperature 0"),
    ],
)
def test_invalid_sampling_settings(settings: dict[str, Any], line: str):
    with pytest.raises(InputError, match=line):
        Sampling(**settings)
