"""The files of a tokenizer with any content, up to the encoding of a prompt; and chat templates, which are programs."""

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import small
import tokenizers
from mutation import harmed, written
from strict import fuzz, returns_or_says_why
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from jaxprefix.text.tokenizer import load_tokenizer

pytestmark = pytest.mark.usefixtures("little_memory")

SENTENCES = [row["prompt"] for row in small.rows(35)]
TEXT = "What is it? <s>[INST] Grüße 北京"
TEMPLATE = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}"
    "{% set messages = messages[1:] %}{% endif %}{% for m in messages %}{{ '[' * loop.index + m['role'] | upper }}\n"
    "{%- if m.content is string %}{{ m.content | trim }}{% else %}{{ raise_exception('no ' ~ m.role) }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'assistant: %s' % range(3) | list | length }}{% endif %}"
)
SETTINGS: dict[str, dict[str, Any]] = {
    "tokenizer_config.json": {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": {"content": "</s>", "lstrip": False},
        "add_bos_token": True,
        "added_tokens_decoder": {"0": {"content": "<s>"}, "1": {"content": "</s>"}},
        "chat_template": [{"name": "default", "template": "{{ bos_token }}"}, {"name": "tools", "template": ""}],
    },
    "special_tokens_map.json": {"bos_token": "<s>", "pad_token": {"content": "</s>"}, "unk_token": "<unk>"},
    "added_tokens.json": {"<s>": 0, "</s>": 1},
    "generation_config.json": {"eos_token_id": [1, 5], "bos_token_id": 0},
    "config.json": {"bos_token_id": 0, "eos_token_id": 1},
}


def _used(directory: Path) -> None:
    tokenizer = load_tokenizer(directory)
    assert all(0 <= index < 2**32 for index in (tokenizer.pad, *tokenizer.eos))
    tokenizer.decode(tokenizer.prompt_ids(TEXT) + tokenizer.response_ids(TEXT))


def unigram() -> tokenizers.Tokenizer:
    """One of few tokens and many parts, whose places are mostly those of settings."""
    tokens = ["<s>", "</s>", "<unk>", *(f"<0x{byte:02X}>" for byte in (0x57, 0xC3)), "▁", "W", "h", "a", "t", "▁i"]
    tokenizer = tokenizers.Tokenizer(
        models.Unigram([(token, -float(place)) for place, token in enumerate(tokens)], 2, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Prepend("▁"), normalizers.Replace(" ", "▁"), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(tokenizers.Regex(r"\p{N}+|\s+"), "isolated"), pre_tokenizers.Metaspace()]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(pad_id=1, pad_token="</s>")
    return tokenizer


@pytest.fixture
def model(place: Path) -> Path:
    small.bpe(SENTENCES, 280).save(str(place / "tokenizer.json"))
    (place / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
    return place


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_tokenizer_json(kind: str, model: Path):
    path = model / "tokenizer.json"
    if kind == "unigram":
        unigram().save(str(path))
        _used(model)
    valid = json.loads(path.read_text())

    def holds(found: bytes) -> bool:
        path.write_bytes(found)
        return returns_or_says_why(lambda: _used(model), model)

    fuzz(written(valid), holds)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_settings_of_a_tokenizer(name: str, model: Path):
    (model / "tokenizer_config.json").unlink()
    for other in SETTINGS:
        if other not in ("tokenizer_config.json", "added_tokens.json") or name == other:
            (model / other).write_text(json.dumps(SETTINGS[other]))
    if name == "config.json":
        (model / "generation_config.json").unlink()
        (model / "special_tokens_map.json").unlink()

    def holds(found: bytes) -> bool:
        (model / name).write_bytes(found)
        return returns_or_says_why(lambda: _used(model), model)

    assert holds(json.dumps(SETTINGS[name]).encode())
    fuzz(written(SETTINGS[name]), holds)


def test_tokenizer_model(place: Path):
    path = place / "tokenizer.model"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 3),
        model_prefix=str(place / "tokenizer"),
        model_type="bpe",
        vocab_size=300,
        byte_fallback=True,
        minloglevel=2,
    )
    os.remove(place / "tokenizer.vocab")

    def holds(found: bytes) -> bool:
        path.write_bytes(found)
        return returns_or_says_why(lambda: _used(place), place)

    fuzz(harmed(path.read_bytes()), holds)


def test_a_tiktoken_file(place: Path):
    path = place / "tokenizer.model"
    lines = [f"{base64.b64encode(bytes([byte])).decode()} {byte}\n" for byte in range(256)]
    added = {"256": {"content": "<s>"}, "257": {"content": "</s>"}}
    settings = {"bos_token": "<s>", "eos_token": "</s>", "added_tokens_decoder": added}
    (place / "tokenizer_config.json").write_text(json.dumps(settings))

    def holds(found: bytes) -> bool:
        path.write_bytes(found)
        return returns_or_says_why(lambda: _used(place), place)

    assert holds("".join(lines).encode())
    fuzz(harmed("".join(lines).encode()), holds)


def test_chat_template_jinja(model: Path):
    """A damaged template may raise anything, but in one line. It names no file, because it fails long after it was
    read.
    """
    path = model / "chat_template.jinja"

    def holds(found: bytes) -> bool:
        path.write_bytes(found)
        return returns_or_says_why(lambda: load_tokenizer(model).chat(TEXT), Path("chat"))

    assert holds(TEMPLATE.encode())
    fuzz(harmed(TEMPLATE.encode()), holds)
