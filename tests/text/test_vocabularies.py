"""Vocabularies without a tokenizer.json: a tokenizer.model in the format of tiktoken, and Mistral's tekken.json."""

import base64
import importlib.util
import json
from itertools import pairwise
from pathlib import Path

import pytest
import regex
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from jaxprefix.errors import InputError
from jaxprefix.text.tokenizer import load_tokenizer

TEXTS = [
    "Wo wurde der Vertrag unterzeichnet, und wer hat's gesagt? 1969 12345",
    "  two  spaces \n\n\tand tabs\r\n DON'T",
    "条约是在哪里签署的?संधि पर हस्ताक्षर 🙂",
    "Где был подписан договор <|eot|> [INST]",
]
# As Meta publishes it in llama3/tokenizer.py.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"  # words
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
ADDED = {"320": "<|begin|>", "321": "<|end|>", "323": "<|eot|>"}


def ranks() -> dict[bytes, int]:
    """A byte-level BPE of 320 tokens: the bytes, and 64 merges in their order."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {chr(byte): byte for byte in printable} | {chr(256 + at): byte for at, byte in enumerate(others)}  # GPT-2
    merged = json.loads(tokenizer.to_str())["model"]["merges"]
    tokens = [bytes([byte]) for byte in range(256)]
    tokens += [bytes(letters[letter] for letter in one + other) for one, other in merged]
    return {token: rank for rank, token in enumerate(dict.fromkeys(tokens))}


def encode(text: str, ranks: dict[bytes, int]) -> list[int]:
    """Byte pair encoding by rank, written from its definition."""
    ids: list[int] = []
    for word in regex.findall(PATTERN, text):
        parts = [bytes([byte]) for byte in word.encode()]
        while len(parts) > 1:
            pairs = [ranks.get(one + other, len(ranks)) for one, other in pairwise(parts)]
            if (lowest := min(pairs)) == len(ranks):
                break
            at = pairs.index(lowest)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        ids += [ranks[part] for part in parts]
    return ids


@pytest.fixture(scope="module")
def tokens() -> dict[bytes, int]:
    return ranks()


@pytest.fixture
def llama(tokens: dict[bytes, int], tmp_path: Path) -> Path:
    """A directory with Meta's form of the vocabulary, and the settings of Hugging Face's."""
    lines = [f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in tokens.items()]
    (tmp_path / "tokenizer.model").write_text("".join(lines))
    added = {index: {"content": token, "special": True} for index, token in ADDED.items()}
    settings = {"bos_token": "<|begin|>", "eos_token": "<|eot|>", "added_tokens_decoder": added}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    return tmp_path


def test_a_tiktoken_file(llama: Path, tokens: dict[bytes, int]):
    assert len(tokens) == 320
    ours = load_tokenizer(llama)
    for text in TEXTS[:3]:
        assert ours.encode(text) == encode(text, tokens)
        assert ours.prompt_ids(text) == [320, *encode(text, tokens)]
        assert ours.decode(ours.prompt_ids(text)) == text
    assert ours.encode("Wo<|eot|>") == [*encode("Wo", tokens), 323]
    assert (ours.bos, ours.eos, ours.vocabulary_size) == (320, (323,), 324)
    assert ours.backend.token_of(322) == "<|reserved_token_322|>"  # the name that transformers gives it


def test_a_tiktoken_file_without_bos(llama: Path, tokens: dict[bytes, int]):
    settings = json.loads((llama / "tokenizer_config.json").read_text())
    (llama / "tokenizer_config.json").write_text(json.dumps(settings | {"add_bos_token": False}))
    assert load_tokenizer(llama).prompt_ids("Wo") == encode("Wo", tokens)


@pytest.mark.parametrize(
    "content, settings, message",
    [
        (None, "{}", "tokenizer.model is a tiktoken file, without special tokens; add the model's tokenizer.json"),
        (None, '{"added_tokens_decoder": {"999999": {"content": "x"}}}', "lists them from id 320 on"),
        ("IQ== 0\n", None, "expected the ranks 0, 1, 2, ... once each, and a token for each byte"),
        ("IQ== 0\nIg== x\n", None, "tokenizer.model:2: expected a token in base64 and its rank"),
        ("IQ== 0\n\nIg== 1\n", None, "tokenizer.model:2: expected a token in base64 and its rank"),
    ],
)
def test_a_tiktoken_file_that_cannot_be_read(content: str | None, settings: str | None, message: str, llama: Path):
    if content is not None:
        (llama / "tokenizer.model").write_text(content)
    if settings is not None:
        (llama / "tokenizer_config.json").write_text(settings)
    with pytest.raises(InputError) as raised:
        load_tokenizer(llama)
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_a_tekken_file_needs_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "tekken.json").write_text("{}")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"tekken.json needs the package mistral-common: pip install 'jaxprefix\[mist"):
        load_tokenizer(tmp_path)


def tekken(path: Path, tokens: dict[bytes, int]) -> Path:
    """A tekken.json in version 7 of its form, with room for 32 special tokens."""
    vocabulary = [
        {"rank": rank, "token_bytes": base64.b64encode(token).decode(), "token_str": None}
        for token, rank in tokens.items()
    ]
    special = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "<pad>"]
    values = {
        "config": {
            "pattern": PATTERN,
            "num_vocab_tokens": len(tokens),
            "default_vocab_size": len(tokens) + 32,
            "default_num_special_tokens": 32,
            "version": "v7",
        },
        "vocab": vocabulary,
        "special_tokens": [{"rank": n, "token_str": token, "is_control": True} for n, token in enumerate(special)],
    }
    path.write_text(json.dumps(values))
    return path


def test_a_tekken_file(tokens: dict[bytes, int], tmp_path: Path):
    mistral = pytest.importorskip("mistral_common.tokens.tokenizers.tekken")
    theirs = mistral.Tekkenizer.from_file(tekken(tmp_path / "tekken.json", tokens))
    (tmp_path / "chat_template.jinja").write_text("{{ bos_token }}[INST]{{ messages[0].content }}[/INST]")
    ours = load_tokenizer(tmp_path)
    for text in TEXTS:
        assert ours.encode(text) == theirs.encode(text, bos=False, eos=False) == [32 + n for n in encode(text, tokens)]
        assert ours.prompt_ids(text) == theirs.encode(text, bos=True, eos=False)
        assert ours.response_ids(text) == theirs.encode(text, bos=False, eos=True)
        assert ours.decode([*ours.response_ids(text), 9999]) == text
    assert (ours.bos, ours.eos, ours.pad, ours.vocabulary_size) == (1, (2,), 5, len(tokens) + 32)
    assert ours.chat("Wo?") == [1, 3, *ours.encode("Wo?"), 4]
    (tmp_path / "tekken.json").write_text("{}")
    with pytest.raises(InputError, match=r"tekken\.json cannot be read: KeyError"):
        load_tokenizer(tmp_path)
