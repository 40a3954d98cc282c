"""A `tekken.json` of Mistral's, read with their package mistral-common."""

import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from jaxprefix.errors import InputError
from jaxprefix.io.messages import one_line

if TYPE_CHECKING:
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer  # type: ignore[import-not-found]


@dataclass(frozen=True)
class TekkenBackend:
    """Special tokens (`<s>`, `[INST]`) in a text stay text, which is the default of the library."""

    tokenizer: "Tekkenizer"

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.tokenizer.encode(text, bos=False, eos=False) for text in texts]

    def encode_template(self, text: str) -> list[int]:
        ids: list[int] = []
        for number, part in enumerate(self._special.split(text)):  # text, special, text, special, ..., text
            ids += [self.tokenizer.get_special_token(part)] if number % 2 else self.encode_batch([part])[0]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode([index for index in ids if index < self.size])  # a padded head has more ids

    def id_of(self, token: str) -> int | None:
        """The id of a special token; the bytes of other tokens need not be text."""
        return self.tokenizer.get_special_token(token) if self.tokenizer.is_special(token) else None

    def token_of(self, index: int) -> str | None:
        return self.tokenizer.id_to_piece(index) if 0 <= index < self.size else None

    @property
    def size(self) -> int:
        return self.tokenizer.n_words

    @property
    def declared(self) -> dict[str, str]:
        return {name: token for name in ("bos", "eos", "unk", "pad") if self.id_of(token := TOKENS[name]) is not None}

    @cached_property
    def _special(self) -> re.Pattern[str]:
        """Any special token, in one group."""
        tokens = (re.escape(self.tokenizer.id_to_piece(index)) for index in sorted(self.tokenizer.special_ids))
        return re.compile(f"({'|'.join(sorted(tokens, key=len, reverse=True))})")


TOKENS = {"bos": "<s>", "eos": "</s>", "unk": "<unk>", "pad": "<pad>"}


def open_tekken(path: Path) -> TekkenBackend:
    """The tokenizer in the file. InputError if the package is not installed, or the file is malformed."""
    if importlib.util.find_spec("mistral_common") is None:
        raise InputError(
            f"{path} needs the package mistral-common: pip install 'jaxprefix[mistral]'; or add a tokenizer.json"
        )
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer  # type: ignore[import-not-found]

    try:
        return TekkenBackend(Tekkenizer.from_file(path))
    except Exception as error:  # it checks little, with asserts
        raise InputError(f"{path} cannot be read: {type(error).__name__}: {one_line(error)}") from None
