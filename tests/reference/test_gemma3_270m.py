"""Gemma 3 270M, a real pretrained model of 140 languages: its weights, ids, logits and answers are those of
transformers and sentencepiece. `make real` makes it.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

import hugging_face as hf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sentencepiece
import small
import torch
from sentencepiece import sentencepiece_model_pb2 as model_pb2
from transformers import Gemma3ForCausalLM

from benchmarks import decoding, real, real_gemma
from jaxprefix.models import decoder, loading
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.hooks import Hooks
from jaxprefix.text.tokenizer import load_tokenizer

DIRECTORY = real.directory(real_gemma.NAME)
pytestmark = [
    pytest.mark.slow,
    small.needs_rows,
    pytest.mark.skipif(not (DIRECTORY / "config.json").is_file(), reason="run `make real` first"),
]
XQUAD, TYDIQA = "google/xquad/xquad.{}/validation.jsonl", "google-research-datasets/tydiqa/secondary_task"
TEXTS = {  # by language: a file of rows, and the name of a text in them
    **{language: (XQUAD.format(language), "context") for language in "ar de en hi zh".split()},
    "sw": ("facebook/xnli/sw/test.jsonl", "premise"),
    "bn": ("juletxara/mgsm/bn/test.jsonl", "question"),
    "it": ("cambridgeltl/xcopa/it/test.jsonl", "premise"),
    **{language: (f"{TYDIQA}/validation.jsonl", "context") for language in ("fi", "ko")},
}
IN_ID = {"fi": "finnish", "ko": "korean"}
NEW, NEAR = 16, 1e-2  # tokens of an answer; logits that differ by less may change places


def texts(language: str, count: int) -> list[str]:
    path, name = TEXTS[language]
    rows = [json.loads(line) for line in (small.MIRROR / path).read_text(encoding="utf-8").splitlines()]
    found = dict.fromkeys(row[name] for row in rows if IN_ID.get(language, "") in str(row.get("id", "")))
    return [text[:600] for text in found][:count]


@pytest.fixture(scope="module")
def pair() -> hf.Pair:
    config = DecoderConfig.read(DIRECTORY)
    return hf.Pair(hf.read(Gemma3ForCausalLM, DIRECTORY), config, loading.load(DIRECTORY, config), DIRECTORY)


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return real_gemma.download(tmp_path_factory.mktemp("gguf"))


def test_the_weights_are_those_that_transformers_dequantises(gguf_file: Path):
    theirs = Gemma3ForCausalLM.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name, dtype=torch.float32)
    ours = hf.read(Gemma3ForCausalLM, DIRECTORY)
    assert ours.config.layer_types == theirs.config.layer_types
    assert ours.config.rope_parameters == theirs.config.rope_parameters
    for name, weight in theirs.state_dict().items():
        assert torch.equal(weight, ours.state_dict()[name]), name


def processor(gguf_file: Path) -> sentencepiece.SentencePieceProcessor:
    """sentencepiece's own program, with the pieces and scores of the GGUF file."""
    import gguf

    fields = gguf.GGUFReader(gguf_file).fields
    tokens, scores, kinds = (fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "scores", "token_type"))
    model = model_pb2.ModelProto()
    for token, score, kind in zip(tokens, scores, kinds, strict=True):
        text = token.replace(" ", "▁") if token.strip(" ") == "" else token
        model.pieces.add(piece=text, score=score, type=2 if token == "<unk>" else kind)
    model.trainer_spec.model_type, model.trainer_spec.byte_fallback = 2, True
    model.trainer_spec.unk_id, model.trainer_spec.bos_id, model.trainer_spec.eos_id = 3, 2, 1
    spec = model.normalizer_spec
    spec.name, spec.add_dummy_prefix, spec.remove_extra_whitespaces = "identity", False, False
    return sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())


def test_ids_are_those_of_sentencepiece(gguf_file: Path):
    """1,000 texts in ten languages."""
    theirs, ours, count = processor(gguf_file), load_tokenizer(DIRECTORY), 0
    for language in TEXTS:
        for text in [*texts(language, 100), "a  b\n\n\tc 12,345 <table>"]:
            assert ours.encode(text) == theirs.encode(text), (language, text)
            assert ours.decode(ours.encode(text)) == text
            count += 1
    assert count > 900


@partial(jax.jit, static_argnums=0)
def _logits(config: DecoderConfig, frozen: Any, batch: decoder.Batch) -> jax.Array:
    return decoder.logits(frozen, decoder.hidden_states(config, frozen, batch))


def test_logits(pair: hf.Pair):
    """Rounding alone: rms and largest difference beside their spread. One row is longer than the window of 512."""
    tokenizer = load_tokenizer(DIRECTORY)
    long = tokenizer.prompt_ids("\n".join(texts("de", 8)))[:600]
    assert len(long) == 600 > pair.config.window
    ids = [long, *(tokenizer.prompt_ids(text)[:64] for language in ("hi", "sw") for text in texts(language, 1))]
    rows = hf.rows("right", tuple(map(len, ids)), vocabulary=1000)
    for row, own in enumerate(ids):
        rows.tokens[row, : len(own)] = own
    expected = hf.torch_logits(pair.torch, rows)[rows.mask]
    found = _logits(pair.config, pair.frozen, decoder.Batch(jnp.array(rows.tokens), jnp.array(rows.positions)))
    difference = np.asarray(found)[rows.mask] - expected
    rms, largest = float(np.sqrt(np.mean(difference**2))), float(np.abs(difference).max())
    print(f"rms {rms:.1e}, largest {largest:.1e}, spread {expected.std():.2f}")
    assert rms < 1e-4 and largest < 1e-2 and expected.std() > 2


@partial(jax.jit, static_argnums=0)
def _generate(config: DecoderConfig, frozen: Any, batch: decoder.Batch) -> Any:
    return decoding.generate(config, frozen, batch, Hooks(), NEW, (1,))


def test_greedy_answers(pair: hf.Pair):
    tokenizer, answers = load_tokenizer(DIRECTORY), []
    for language in TEXTS:
        ids = tokenizer.prompt_ids("\n".join(texts(language, 8)))[:32]  # one length: one compilation
        batch = decoder.Batch(jnp.array([ids]), jnp.arange(len(ids))[None])
        tokens, counts = jax.device_get(_generate(pair.config, pair.frozen, batch))
        given = torch.tensor([ids])
        settings = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": 1, "pad_token_id": 0}
        wanted = pair.torch.generate(input_ids=given, attention_mask=torch.ones_like(given), **settings)[0, len(ids) :]
        wanted = wanted.tolist()[: wanted.tolist().index(1)] if 1 in wanted else wanted.tolist()
        assert tokens[0, : counts[0]].tolist() == wanted, (language, tokenizer.decode(wanted))
        answers.append(tuple(wanted))
    assert len(set(answers)) > 7
