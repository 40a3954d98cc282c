"""Tokenizer backends: the tokenizers library for `tokenizer.json`, sentencepiece for `tokenizer.model` alone.

Sentencepiece models are not converted: on 5,950 XQuAD questions, the LlamaTokenizer of transformers 5.23 and
sentencepiece differ on 4 with a small BPE `tokenizer.model` trained on them, and on 5,748 with a unigram one. Other
files are a `tokenizer.model` in the format of tiktoken (tiktoken.py), and Mistral's `tekken.json` (tekken.py).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import tokenizers

from jaxprefix.errors import InputError
from jaxprefix.io.messages import one_line
from jaxprefix.io.strict_json import parse
from jaxprefix.text.tekken import open_tekken
from jaxprefix.text.tiktoken import is_tiktoken, read_tiktoken

if TYPE_CHECKING:
    import sentencepiece

LONGEST_TOKEN = 1000
LARGEST_ID = 2**32 - 1  # both libraries keep ids in 32 bits and raise for others


class Backend(Protocol):
    """The interface of both backends."""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]: ...
    def encode_template(self, text: str) -> list[int]: ...  # a rendered chat, with special tokens
    def decode(self, ids: Sequence[int]) -> str: ...
    def id_of(self, token: str) -> int | None: ...
    def token_of(self, index: int) -> str | None: ...
    @property
    def size(self) -> int: ...
    @property
    def declared(self) -> dict[str, str]: ...  # "bos", "eos", "unk", "pad": the special tokens that the file names


@dataclass(frozen=True)
class FastBackend:
    """A `tokenizer.json`. Special tokens in a text are encoded as such, which is the default of the library."""

    tokenizer: tokenizers.Tokenizer
    path: Path = Path("tokenizer.json")  # the file, for messages

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        with _input_errors(f"{self.path} fails on a text"):
            return [
                encoding.ids for encoding in self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
            ]

    def encode_template(self, text: str) -> list[int]:
        return self.encode_batch([text])[0]

    def decode(self, ids: Sequence[int]) -> str:
        with _input_errors(f"{self.path} fails on ids"):
            return self.tokenizer.decode(list(ids), skip_special_tokens=True)

    def id_of(self, token: str) -> int | None:
        return self.tokenizer.token_to_id(token)

    def token_of(self, index: int) -> str | None:
        return self.tokenizer.id_to_token(index) if 0 <= index <= LARGEST_ID else None

    @cached_property
    def start(self) -> int | None:
        """The token that the post-processor of the file puts before each text: BOS, or None."""
        with _input_errors(f"{self.path} fails on a text"):
            whole, plain = (self.tokenizer.encode("a", add_special_tokens=added).ids for added in (True, False))
        before = [at for at in range(len(whole)) if plain and whole[at : at + len(plain)] == plain]
        first = whole[: before[0] if before else 1]  # a vocabulary without "a" shows its first token
        if len(first) > 1:
            raise InputError(f"{self.path} puts {len(first)} tokens before each text; expected BOS or none")
        return first[0] if first else None

    @property
    def size(self) -> int:
        return max(self.tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    @property
    def declared(self) -> dict[str, str]:
        return {}


@dataclass(frozen=True)
class SentencePieceBackend:
    """A `tokenizer.model`. Control tokens (`<s>`, `</s>`) in a text stay text, which is the default of the library."""

    processor: "sentencepiece.SentencePieceProcessor"
    control: re.Pattern[str]  # any control piece, in one group

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return self.processor.encode(list(texts))

    def encode_template(self, text: str) -> list[int]:
        ids: list[int] = []
        for number, part in enumerate(self.control.split(text)):  # text, control, text, control, ..., text
            ids += [self.processor.piece_to_id(part)] if number % 2 else self.processor.encode(part)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return self.processor.decode([index for index in ids if index < self.size])  # a padded head has more ids

    def id_of(self, token: str) -> int | None:
        index = self.processor.piece_to_id(token)
        return index if self.processor.id_to_piece(index) == token else None  # unknown pieces have the id of <unk>

    def token_of(self, index: int) -> str | None:
        return self.processor.id_to_piece(index) if 0 <= index < self.size else None

    @property
    def size(self) -> int:
        return self.processor.get_piece_size()

    @property
    def declared(self) -> dict[str, str]:
        ids = {"bos": self.processor.bos_id(), "eos": self.processor.eos_id(), "unk": self.processor.unk_id()}
        return {name: self.processor.id_to_piece(index) for name, index in ids.items() if index >= 0}


@contextmanager
def _input_errors(problem: str) -> Iterator[None]:
    """Makes an InputError of errors of the tokenizers library, Rust panics (BaseExceptions) included."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise InputError(f"{problem}: {one_line(error)}") from None


def _check_lengths(path: Path) -> None:
    """InputError for a long token of a unigram model: the library frees its trie by recursion and would crash."""
    content = path.read_bytes()
    strings = content.replace(b"\\\\", b"..").replace(b'\\"', b"..").split(b'"')
    if max(map(len, strings)) <= LONGEST_TOKEN:  # a quick test, nearly always true
        return
    try:
        values = parse(content)
    except InputError as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    model = values.get("model") if isinstance(values, dict) else None
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    for entry in vocabulary if isinstance(vocabulary, list) else ():  # an object for other models
        if isinstance(entry, list) and entry and isinstance(entry[0], str) and len(entry[0]) > LONGEST_TOKEN:
            raise InputError(
                f"{path}: a token of the vocabulary has {len(entry[0])} characters; expected at most {LONGEST_TOKEN}"
            )


def open_backend(directory: Path, added: Mapping[int, str], bos: str | None) -> Backend:
    """The tokenizer of a model directory: its tokenizer.json, or else its tekken.json or tokenizer.model.

    A file in the format of tiktoken lacks the special tokens: `added`, by id, and the BOS to put before each text.
    """
    fast, tekken, piece = (directory / name for name in ("tokenizer.json", "tekken.json", "tokenizer.model"))
    if fast.is_file():
        _check_lengths(fast)
        with _input_errors(f"{fast} cannot be read"):
            tokenizer = tokenizers.Tokenizer.from_file(str(fast))
        tokenizer.no_truncation()  # a saved maximum length or padding must not change the ids
        tokenizer.no_padding()
        return FastBackend(tokenizer, fast)
    if tekken.is_file():
        return open_tekken(tekken)
    if piece.is_file():
        if is_tiktoken(piece):
            return FastBackend(read_tiktoken(piece, added, bos), piece)
        return _open_sentencepiece(piece)
    raise InputError(f"{directory} has no tokenizer; expected tokenizer.json, tokenizer.model or tekken.json")


def _open_sentencepiece(path: Path) -> SentencePieceBackend:
    import sentencepiece  # few models need it

    try:
        processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
        pieces = [processor.id_to_piece(index) for index in range(processor.get_piece_size())]
    except (RuntimeError, OSError, UnicodeDecodeError) as error:  # it does not check that pieces are valid UTF-8
        raise InputError(f"{path} is not a sentencepiece model; give the model's tokenizer.json") from error
    control = [re.escape(text) for index, text in enumerate(pieces) if processor.is_control(index)]
    return SentencePieceBackend(processor, re.compile(f"({'|'.join(control) or '(?!)'})"))
