"""The libraries behind a tokenizer: tokenizers for a `tokenizer.json`, sentencepiece for a lone `tokenizer.model`.

No conversion stands between: on 5,950 XQuAD questions, transformers 5.23's LlamaTokenizer gives other ids than
sentencepiece for 4 with a small BPE `tokenizer.model` trained on them, and for 5,748 with a unigram one.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import sentencepiece
import tokenizers

from jaxprefix.wording import one_line

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

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [found.ids for found in self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def encode_template(self, text: str) -> list[int]:
        return self.encode_batch([text])[0]

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)

    def id_of(self, token: str) -> int | None:
        return self.tokenizer.token_to_id(token)

    def token_of(self, index: int) -> str | None:
        return self.tokenizer.id_to_token(index) if 0 <= index <= LARGEST_ID else None

    def encode_start(self) -> list[int]:
        """The first id of an empty text as the file's own post-processor makes it: nothing, or its BOS."""
        return self.tokenizer.encode("").ids[:1]

    @property
    def size(self) -> int:
        return max(self.tokenizer.get_vocab(with_added_tokens=True).values()) + 1


@dataclass(frozen=True)
class SentencePieceBackend:
    """A `tokenizer.model`. Control tokens (`<s>`, `</s>`) in a text stay text, as the library does by default."""

    processor: sentencepiece.SentencePieceProcessor
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


def open_backend(directory: Path) -> Backend:
    fast, piece = directory / "tokenizer.json", directory / "tokenizer.model"
    if fast.is_file():
        try:
            tokenizer = tokenizers.Tokenizer.from_file(str(fast))
        except Exception as error:  # the library raises nothing more precise
            raise ValueError(f"{fast} cannot be read: {one_line(error)}") from error
        tokenizer.no_truncation()  # a saved length limit or padding is not a property of the text
        tokenizer.no_padding()
        return FastBackend(tokenizer)
    if piece.is_file():
        try:
            processor = sentencepiece.SentencePieceProcessor(model_file=str(piece))
        except (RuntimeError, OSError) as error:
            raise ValueError(f"{piece} is not a sentencepiece model; give the model's tokenizer.json") from error
        pieces = range(processor.get_piece_size())
        control = [re.escape(processor.id_to_piece(index)) for index in pieces if processor.is_control(index)]
        return SentencePieceBackend(processor, re.compile(f"({'|'.join(control) or '(?!)'})"))
    raise ValueError(f"{directory} holds no tokenizer: neither tokenizer.json nor tokenizer.model")
