"""SmolLM2-135M, a real pretrained Llama: its weights, ids, logits and answers are those of transformers and PEFT.

`make real` makes the model. Random weights hide what real ones have: massive activations, attention sinks, near ties.
"""

import itertools
from functools import partial
from pathlib import Path
from typing import Any

import hugging_face as hf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
import tokenizers
import torch
from peft import PeftModel
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks import beside_peft, decoding, real
from jaxprefix.models import adapter_init, decoder, loading
from jaxprefix.models.adapters import Adapter, LoRA, NoAdapter, PrefixTuning, SoftPrompt
from jaxprefix.models.config import DecoderConfig
from jaxprefix.peft.convert import to_peft
from jaxprefix.peft.files import write_adapter
from jaxprefix.runs.base_model import init_token_ids
from jaxprefix.tasks.tydiqa import TYDIQA
from jaxprefix.text.tokenizer import load_tokenizer

pytestmark = [
    pytest.mark.slow,
    small.needs_rows,
    pytest.mark.skipif(not (real.directory() / "config.json").is_file(), reason="run `make real` first"),
    # PEFT counts the positions of a soft prompt itself, rightly, and says so at every token.
    pytest.mark.filterwarnings("ignore:Position ids are not supported:UserWarning"),
]

DIRECTORY = real.directory()
NEW = 24  # tokens of an answer
NEAR = 1e-2  # two logits that differ by less may change places: float32 errors reach 1e-3 on this model
ADAPTERS: dict[str, Adapter] = {
    "none": NoAdapter(),
    "lora": LoRA(4, 8.0, "q,k,v,o,gate,up,down"),
    "prefix": PrefixTuning(10, "all"),
    "soft-prompt": SoftPrompt(10),
}


def prompts(count: int) -> list[str]:
    rows = TYDIQA.load("en", "train", small.MIRROR)
    examples = (TYDIQA.example(row, "en") for row in rows)
    return [example.prompt for example in itertools.islice(filter(None, examples), count)]


@pytest.fixture(scope="module")
def pair() -> hf.Pair:
    config = DecoderConfig.read(DIRECTORY)
    return hf.Pair(hf.read(LlamaForCausalLM, DIRECTORY), config, loading.load(DIRECTORY, config), DIRECTORY)


def test_the_weights_are_those_that_transformers_dequantises(tmp_path: Path):
    file = real.download(tmp_path)
    theirs = LlamaForCausalLM.from_pretrained(tmp_path, gguf_file=str(file.relative_to(tmp_path)), dtype=torch.float32)
    ours = hf.read(LlamaForCausalLM, DIRECTORY).state_dict()
    assert set(ours) == set(theirs.state_dict())
    for name, weight in theirs.state_dict().items():
        assert torch.equal(weight, ours[name]), name


def test_ids_are_those_of_the_tokenizers_library():
    """1,000 real prompts, plain and in the chat template, which transformers renders."""
    raw = tokenizers.Tokenizer.from_file(str(DIRECTORY / "tokenizer.json"))
    ours, renderer = load_tokenizer(DIRECTORY), PreTrainedTokenizerFast.from_pretrained(DIRECTORY)
    asked = prompts(1000)
    assert len(asked) == 1000 and sum(any(letter.isdigit() for letter in text) for text in asked) > 500
    for text in asked:
        assert ours.encode(text) == raw.encode(text, add_special_tokens=False).ids
        turns = [{"role": "user", "content": text}]
        rendered = renderer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        assert ours.chat(text) == raw.encode(rendered, add_special_tokens=False).ids


@partial(jax.jit, static_argnums=0)
def _logits(config: DecoderConfig, frozen: Any, batch: decoder.Batch) -> jax.Array:
    return decoder.logits(frozen, decoder.hidden_states(config, frozen, batch, decoder.Hooks()))


def test_logits(pair: hf.Pair):
    """Rounding alone: rms and largest difference beside a spread of about 6."""
    tokenizer = load_tokenizer(DIRECTORY)
    ids = [tokenizer.prompt_ids(text)[:128] for text in prompts(4)]
    rows = hf.rows("right", tuple(map(len, ids)))
    for row, own in enumerate(ids):
        rows.tokens[row, : len(own)] = own
    expected = hf.torch_logits(pair.torch, rows)[rows.mask]
    found = _logits(pair.config, pair.frozen, decoder.Batch(jnp.array(rows.tokens), jnp.array(rows.positions)))
    difference = np.asarray(found)[rows.mask] - expected
    rms, largest = float(np.sqrt(np.mean(difference**2))), float(np.abs(difference).max())
    print(f"rms {rms:.1e}, largest {largest:.1e}, spread {expected.std():.2f}")
    assert rms < 1e-4 and largest < 1e-2 and expected.std() > 2


@partial(jax.jit, static_argnums=(0, 1))
def _generate(config: DecoderConfig, adapter: Adapter, params: Any, frozen: Any, batch: decoder.Batch) -> Any:
    weights, hooks = adapter.bind(config, params, frozen)
    return decoding.generate(config, weights, batch, hooks, NEW, (2,))


def _params(adapter: Adapter, pair: hf.Pair) -> Any:
    """Fresh ones, moved enough to change what is said."""
    tokens = init_token_ids(load_tokenizer(DIRECTORY), 0)
    fresh = jax.jit(lambda: adapter_init.init_params(adapter, jax.random.key(0), pair.config, pair.frozen, tokens))()
    random = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: np.asarray(leaf) + 0.01 * random.normal(size=leaf.shape).astype("f"), fresh)


def _theirs(pair: hf.Pair, adapter: Adapter, params: Any, folder: Path) -> Any:
    if isinstance(adapter, NoAdapter):
        return pair.torch
    settings, tensors = to_peft(adapter, params, pair.config, lambda hidden: hf.project(pair, hidden))
    write_adapter(folder, settings | {"base_model_name_or_path": str(DIRECTORY)}, tensors, "hash", "card")
    return PeftModel.from_pretrained(hf.read(LlamaForCausalLM, DIRECTORY), str(folder)).eval()


def _is_tie(model: Any, prompt: list[int], wanted: list[int], found: list[int]) -> bool:
    """Whether the first token that differs is as likely as theirs, to rounding."""
    place = next(index for index, pair in enumerate(itertools.zip_longest(wanted, found)) if pair[0] != pair[1])
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + wanted[:place]])).logits[0, -1]
    one, other = (tokens[place] if place < len(tokens) else 2 for tokens in (wanted, found))
    return abs(float(logits[one] - logits[other])) < NEAR


@pytest.mark.parametrize("name", ADAPTERS)
def test_greedy_answers(pair: hf.Pair, tmp_path: Path, name: str):
    adapter, tokenizer = ADAPTERS[name], load_tokenizer(DIRECTORY)
    params = _params(adapter, pair)
    model, plain = _theirs(pair, adapter, params, tmp_path / "peft"), []
    for text in prompts(8):
        ids = tokenizer.prompt_ids(text)[-96:]
        batch = decoder.Batch(jnp.array([ids]), jnp.arange(len(ids))[None])
        tokens, counts = jax.device_get(_generate(pair.config, adapter, params, pair.frozen, batch))
        given = torch.tensor([ids])
        settings = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": 2, "pad_token_id": 2}
        answer = model.generate(input_ids=given, attention_mask=torch.ones_like(given), **settings)
        wanted = answer[0, len(ids) :].tolist()
        wanted = wanted[: wanted.index(2)] if 2 in wanted else wanted
        found = tokens[0, : counts[0]].tolist()
        assert found == wanted or _is_tie(model, ids, wanted, found), (tokenizer.decode(wanted), text)
        plain.append(found)
    assert len({tuple(row) for row in plain}) > 4


@pytest.mark.parametrize("name", beside_peft.METHODS)
def test_twenty_steps_lose_what_pefts_do(name: str):
    """LoRA under AdamW, a prefix under SGD."""
    ours, theirs = beside_peft.curves(small.MIRROR, name, 20)
    difference = np.abs(np.array(ours) - theirs).max()
    print(f"{name}: loss {theirs[0]:.3f} to {theirs[-1]:.3f}, largest difference {difference:.1e}")
    assert np.mean(theirs[-5:]) < np.mean(theirs[:5]) - 0.02 and difference <= 1e-3
