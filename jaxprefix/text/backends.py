"""The libraries behind a tokenizer: tokenizers for a `tokenizer.json`, sentencepiece for a lone `tokenizer.model`.

No conversion stands between: on 5,950 XQuAD questions, transformers 5.23's LlamaTokenizer gives other ids than
sentencepiece for 4 with a small BPE `tokenizer.model` trained on them, and for 5,748 with a unigram one.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import tokenizers

from jaxprefix.errors import InputError
from jaxprefix.io.messages import one_line
from jaxprefix.io.strict_json import parse

if TYPE_CHECKING:
    import sentencepiece

LONGEST_TOKEN = 1000
LARGEST_ID = 2**32 - 1  # both libraries keep ids in 32 bits and raise for others


class Backend(Protocol):
    """What both kinds of tokenizer can do."""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]: ...
    def encode_template(self, text: str) -> list[int]: ...  # rendered chat: special tokens are read as such
    def decode(self, ids: Sequence[int]) -> str: ...
    def id_of(self, token: str) -> int | None: ...
    def token_of(self, index: int) -> str | None: ...
    @property
    def size(self) -> int: ...


@dataclass(frozen=True)
class FastBackend:
    """A `tokenizer.json`. Special tokens written in a text become those tokens, as the library does by default."""

    tokenizer: tokenizers.Tokenizer
    path: Path = Path("tokenizer.json")  # where it was read, for messages

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        with _refused(f"{self.path} fails on a text"):
            return [found.ids for found in self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def encode_template(self, text: str) -> list[int]:
        return self.encode_batch([text])[0]

    def decode(self, ids: Sequence[int]) -> str:
        with _refused(f"{self.path} fails on ids"):
            return self.tokenizer.decode(list(ids), skip_special_tokens=True)

    def id_of(self, token: str) -> int | None:
        return self.tokenizer.token_to_id(token)

    def token_of(self, index: int) -> str | None:
        return self.tokenizer.id_to_token(index) if 0 <= index <= LARGEST_ID else None

    def encode_start(self) -> list[int]:
        """The first id of an empty text as the file's own post-processor makes it: nothing, or its BOS."""
        with _refused(f"{self.path} fails on an empty text"):
            return self.tokenizer.encode("").ids[:1]

    @property
    def size(self) -> int:
        return max(self.tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1


@dataclass(frozen=True)
class SentencePieceBackend:
    """A `tokenizer.model`. Control tokens (`<s>`, `</s>`) in a text stay text, as the library does by default."""

    processor: "sentencepiece.SentencePieceProcessor"
    control: re.Pattern[str]  # every control piece, in a group

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return self.processor.encode(list(texts))

    def encode_template(self, text: str) -> list[int]:
        ids: list[int] = []
        for number, part in enumerate(self.control.split(text)):  # text, control, text, control, ..., text
            ids += [self.processor.piece_to_id(part)] if number % 2 else self.processor.encode(part)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return self.processor.decode([index for index in ids if index < self.size])  # a padded head knows more ids

    def id_of(self, token: str) -> int | None:
        index = self.processor.piece_to_id(token)
        return index if self.processor.id_to_piece(index) == token else None  # unknown pieces are given <unk>'s id

    def token_of(self, index: int) -> str | None:
        return self.processor.id_to_piece(index) if 0 <= index < self.size else None

    @property
    def size(self) -> int:
        return self.processor.get_piece_size()


@contextmanager
def _refused(what: str) -> Iterator[None]:
    """An InputError for what the tokenizers library raises: a bare Exception, or a Rust panic, which is not even one."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise InputError(f"{what}: {one_line(error)}") from None


def _check_lengths(path: Path) -> None:
    """InputError for a unigram's token so long that the library ends the process: it drops its trie by recursion."""
    content = path.read_bytes()
    strings = content.replace(b"\\\\", b"..").replace(b'\\"', b"..").split(b'"')
    if max(map(len, strings)) <= LONGEST_TOKEN:  # nearly always, and quick to find out
        return
    try:
        values = parse(content)
    except InputError as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    model = values.get("model") if isinstance(values, dict) else None
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    for entry in vocabulary if isinstance(vocabulary, list) else ():  # of other models it is an object
        if isinstance(entry, list) and entry and isinstance(entry[0], str) and len(entry[0]) > LONGEST_TOKEN:
            raise InputError(
                f"{path}: a token of the vocabulary has {len(entry[0])} characters; expected at most {LONGEST_TOKEN}"
            )


def open_backend(directory: Path) -> Backend:
    """The tokenizer of a model directory; tokenizer.json goes before tokenizer.model."""
    fast, piece = directory / "tokenizer.json", directory / "tokenizer.model"
    if fast.is_file():
        _check_lengths(fast)
        with _refused(f"{fast} cannot be read"):
            tokenizer = tokenizers.Tokenizer.from_file(str(fast))
        tokenizer.no_truncation()  # a saved length limit or padding is not a property of the text
        tokenizer.no_padding()
        return FastBackend(tokenizer, fast)
    if piece.is_file():
        import sentencepiece  # few models need it

        try:
            processor = sentencepiece.SentencePieceProcessor(model_file=str(piece))
            pieces = [processor.id_to_piece(index) for index in range(processor.get_piece_size())]
        except (RuntimeError, OSError, UnicodeDecodeError) as error:  # it does not check that pieces are texts
            raise InputError(f"{piece} is not a sentencepiece model; give the model's tokenizer.json") from error
        control = [re.escape(text) for index, text in enumerate(pieces) if processor.is_control(index)]
        return SentencePieceBackend(processor, re.compile(f"({'|'.join(control) or '(?!)'})"))
    raise InputError(f"{directory} holds no tokenizer: neither tokenizer.json nor tokenizer.model")
