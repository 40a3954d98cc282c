"""The evaluation engine equals transformers on real prompts of five languages, whatever the method (law 9).

Greedy answers token for token, likelihoods of choices within 1e-4; rows padded left, right or not at all, and in
batches that are kept full. What differs between near ties is counted.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import adapted
import gradients
import hugging_face as hf
import jax
import jax.numpy as jnp
import peers
import prompts as real
import pytest
import small
import torch
from models import tiny
from models.every import ALL_SEVEN
from torch_answers import NEAR, NEW, Answer, Theirs

from benchmarks import decoding
from jaxprefix.distributed.mesh import make_mesh
from jaxprefix.inference import engine
from jaxprefix.inference.batching import Request, plan_buckets
from jaxprefix.inference.model import Model
from jaxprefix.models import scoring
from jaxprefix.models.adapters import (
    IA3,
    Adapter,
    BottleneckAdapter,
    FullFineTuning,
    LlamaAdapter,
    LoRA,
    NoAdapter,
    PrefixTuning,
    SoftPrompt,
    Sum,
)
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.decoder import Batch
from jaxprefix.runs.base_model import load_weights, open_base
from jaxprefix.text.backends import FastBackend

pytestmark = [
    small.needs_rows,
    pytest.mark.filterwarnings(gradients.IGNORED),
    # PEFT counts positions of a soft prompt itself, rightly, and says so at every token.
    pytest.mark.filterwarnings("ignore:Position ids are not supported:UserWarning"),
]

METHODS: dict[str, Adapter] = {
    "none": NoAdapter(),
    "full": FullFineTuning(),
    "lora": LoRA(3, 6.0, ALL_SEVEN),
    "prefix": PrefixTuning(5, "all"),
    "prefix of top layers": PrefixTuning(5),
    "llama-adapter": LlamaAdapter(5, gate="layer"),
    "llama-adapter of heads": LlamaAdapter(5, "all"),
    "soft-prompt": SoftPrompt(5, start="random"),
    "bottleneck": BottleneckAdapter(4, "houlsby"),
    "dora": LoRA(3, dora=True),
    "ia3": IA3(),
    "prefix+lora": Sum((("prefix", PrefixTuning(5)), ("lora", LoRA(3)))),
}
SEVERAL = (
    "prefix",
    "llama-adapter of heads",
    "soft-prompt",
    "lora",
    "dora",
    "bottleneck",
    "ia3",
)  # what a batch may hold several of
FEW = ("prefix",)  # the others are slow only because there are many
# At 0.2 the next token depends on far more than the last one, and ties are rare.
CHANGES = {"initializer_range": 0.2, "vocab_size": real.VOCABULARY, "max_position_embeddings": 128}
LLAMA, MISTRAL = "grouped heads", "mistral window"
# The other kinds of hugging_face.py are the same mathematics in other files.
KINDS = (
    LLAMA,
    "full heads",
    "one key head",
    "heads wider than hidden",
    "heads narrower than hidden",
    "tied",
    "llama3 rope",
    "linear rope",
    MISTRAL,
    "mistral without window",
)
WINDOW = {"sliding_window": 11}  # shorter than most prompts; at 5, as the kind has it, most answers are alike
Pairs = Callable[[str], hf.Pair]


@dataclass(frozen=True)
class Spelled(FastBackend):
    """A text is its ids in digits: half characters, of which a random model writes many, would all read alike."""

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(map(str, ids))


@dataclass
class Seen:
    """What was compared; it must be enough."""

    answers: int = 0
    tokens: int = 0
    ties: int = 0
    choices: int = 0
    greedy: int = 0
    difference: float = 0.0
    different: set[tuple[int, ...]] = field(default_factory=set)

    def answer(self, theirs: Theirs, expected: Answer, found: list[int]) -> None:
        if found != expected.tokens:
            assert theirs.tied(expected, found), f"{found} is not {expected.tokens}, after {expected.prompt}"
            self.ties += 1
        self.answers += 1
        self.tokens += len(found)
        self.different.add(tuple(found))

    def scores(self, expected: Answer, logprobs: Sequence[float], greedy: Sequence[bool]) -> None:
        for ours, wanted in zip(logprobs, expected.logprobs, strict=True):
            assert abs(ours - wanted) < 1e-4, f"{ours} is not {wanted}, after {expected.prompt}"
            self.difference = max(self.difference, abs(ours - wanted))
        for ours, margin in zip(greedy, expected.margins, strict=True):
            assert ours == (margin > 0) or abs(margin) < NEAR, f"margin {margin} after {expected.prompt}"
        self.choices += len(greedy)
        self.greedy += sum(greedy)

    def report(self, prompts: int) -> None:
        """For `pytest -rP`."""
        lengths = {len(tokens) for tokens in self.different}
        print(
            f"{self.answers} answers of {self.tokens} tokens, {len(self.different)} different ones, of "
            f"{len(lengths)} lengths, {self.ties} ties; {self.choices} choices, {self.greedy} of them greedy, "
            f"log-likelihoods differ by at most {self.difference:.1e}"
        )
        assert len(self.different) > prompts / 2 and len(lengths) > 2 and NEW in lengths
        assert self.choices / 5 < self.greedy < self.choices / 2


@partial(jax.jit, static_argnums=(0, 1, 2))
def ours(
    config: DecoderConfig,
    adapter: Adapter,
    ends: tuple[int, ...],
    params: Any,
    frozen: Any,
    batch: Batch,
    *choices: Any,
) -> tuple:
    weights, hooks = adapter.bind(config, params, frozen)
    answers = decoding.generate(config, weights, batch, hooks, NEW, ends)
    return answers, scoring.choices(config, weights, batch, hooks, *choices)


def assert_padded(seen: Seen, model: Model, theirs: Theirs, side: str) -> None:
    """decode.generate and score.choices, on batches of rows of all lengths, or of one where nothing is padded."""
    answers, config, ends = theirs.whole if side == "none" else theirs.own, model.base.config, theirs.ends
    size = min(len(answers), 40)
    for start in range(0, len(answers), size):
        part = answers[start : start + size]
        rows = real.padded([answer.prompt for answer in part], side)
        batch = Batch(jnp.array(rows.tokens), jnp.array(rows.positions))
        choices = tiny.packed([answer.choices for answer in part], 4 * real.WIDTH)
        found = ours(config, model.adapter, ends, model.params, model.frozen, batch, *choices)
        (tokens, counts), (logprobs, greedy) = jax.device_get(found)
        for row, answer in enumerate(part):
            seen.answer(theirs, answer, tokens[row, : counts[row]].tolist())
            seen.scores(answer, logprobs[row].tolist(), greedy[row].tolist())


def assert_engine(seen: Seen, model: Model, theirs: Sequence[Theirs], size: int, buckets: int) -> None:
    """engine.generate, `size` rows in a batch that is kept full, and engine.score; adapters take turns."""
    expected = [theirs[place % len(theirs)].own[place] for place in range(len(theirs[0].own))]
    asked = [Request(answer.prompt, adapter=place % len(theirs)) for place, answer in enumerate(expected)]
    assert len({part.prompt_len for part in plan_buckets(asked, size)}) == buckets
    found = dict(pair for ended in engine.generate(model, asked, size, NEW) for pair in ended)
    for place, answer in enumerate(expected):
        seen.answer(theirs[place % len(theirs)], answer, [int(number) for number in found[place].split()])
    asked = [replace(each, choices=answer.choices) for each, answer in zip(asked, expected, strict=True)]
    scored = dict(pair for part in engine.score(model, asked, 2 * size) for pair in part)
    for place, answer in enumerate(expected):
        seen.scores(answer, scored[place].logprobs, scored[place].greedy)


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """The products are tiny: a second thread of torch waits longer than it works, and XLA's optimisations take longer
    than the run.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    """A model of each kind, made when it is first asked for, with the tokenizer beside it."""
    made: dict[str, hf.Pair] = {}

    def pair(name: str) -> hf.Pair:
        if name not in made:
            kind, folder = hf.KINDS[name], tmp_path_factory.mktemp("model")
            changes = CHANGES | dict(kind.changes) | (WINDOW if name == MISTRAL else {})
            made[name] = hf.make(replace(kind, changes=changes), folder)
            real.tokenizer().save(str(folder / "tokenizer.json"))
            (folder / "tokenizer_config.json").write_text('{"bos_token": "<s>", "eos_token": "</s>"}')
        return made[name]

    return pair


def opened(pair: hf.Pair, adapter: Adapter, params: Any, ends: tuple[int, ...], several: bool = False) -> Model:
    base, mesh = open_base(str(pair.directory)), make_mesh("1x1")
    backend = Spelled(base.tokenizer.backend.tokenizer)  # type: ignore[attr-defined]
    base = replace(base, tokenizer=replace(base.tokenizer, backend=backend, eos=ends))
    params, frozen = jax.tree.map(jnp.asarray, params), load_weights(base, mesh, "float32")
    return Model(base, adapter, params, frozen, mesh, 96, chat=False, multi_adapter=several)


def few(names: Iterable[str], *quick: str) -> list[Any]:
    return [name if name in (quick or FEW) else pytest.param(name, marks=pytest.mark.slow) for name in names]


def answered(pair: hf.Pair, adapter: Adapter, count: int, folder: Path) -> tuple[Model, Theirs]:
    params = adapted.drawn(pair, adapter, folder, seed=5)
    theirs = Theirs(adapted.model_of(pair, adapter, params, folder), real.prompts(count))
    theirs.ends = (theirs.find_end(),)
    return opened(pair, adapter, params, theirs.ends), theirs


@pytest.mark.parametrize("name", few([name for name in METHODS if name not in SEVERAL], "prefix+lora"))
def test_the_engine(pairs: Pairs, tmp_path: Path, name: str):
    """A Llama with grouped heads."""
    model, theirs = answered(pairs(LLAMA), METHODS[name], 20, tmp_path)
    seen = Seen()
    assert_engine(seen, model, [theirs], size=4, buckets=2)
    seen.report(20)


@peers.peft_generates
def test_the_engine_with_a_soft_prompt(pairs: Pairs, tmp_path: Path):
    """Two prompts entering at a time; the soft prompt passes out of sight of Mistral's window."""
    model, theirs = answered(pairs(MISTRAL), METHODS["soft-prompt"], 50, tmp_path)
    seen = Seen()
    assert_engine(seen, model, [theirs], size=10, buckets=2)
    seen.report(50)


@pytest.mark.parametrize("name", few(METHODS))
def test_padding(pairs: Pairs, tmp_path: Path, name: str):
    """Under Mistral's window."""
    model, theirs = answered(pairs(MISTRAL), METHODS[name], 20, tmp_path)
    seen = Seen()
    for side in ("left", "right", "none"):
        assert_padded(seen, model, theirs, side)
    seen.report(20)


@pytest.mark.parametrize("name", few(SEVERAL))
def test_several_adapters_in_a_batch(pairs: Pairs, tmp_path: Path, name: str, request: pytest.FixtureRequest):
    """Each row answers as the torch model of its own adapter."""
    if name in ("prefix", "soft-prompt"):
        request.applymarker(peers.peft_generates)
    pair, adapter, prompts = pairs(LLAMA), METHODS[name], real.prompts(20)
    params = [adapted.drawn(pair, adapter, tmp_path, seed) for seed in (100, 200, 300)]
    models = [adapted.model_of(pair, adapter, each, tmp_path / str(number)) for number, each in enumerate(params)]
    theirs = [Theirs(model, prompts) for model in models]
    ends = tuple(each.find_end() for each in theirs[:2])
    for each in theirs:
        each.ends = ends
    seen = Seen()
    assert_engine(seen, opened(pair, adapter, tiny.together(params), ends, several=True), theirs, size=4, buckets=2)
    seen.report(20)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_and_method(pairs: Pairs, tmp_path: Path, kind: str, name: str):
    """200 prompts, in programs that are optimised as everyone's are."""
    jax.config.update("jax_disable_most_optimizations", False)
    model, theirs = answered(pairs(kind), METHODS[name], 200, tmp_path)
    seen = Seen()
    for side in ("left", "right", "none"):
        assert_padded(seen, model, theirs, side)
    assert_engine(seen, model, [theirs], size=16, buckets=2)
    seen.report(200)
