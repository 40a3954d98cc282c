"""A `tokenizer.model` in the format of tiktoken: Llama 3's as Meta publishes it, a token and its rank on each line."""

import base64
import binascii
import re
from collections.abc import Mapping
from pathlib import Path

import tokenizers
from tokenizers import processors

from jaxprefix.errors import InputError

_LINE = re.compile(rb"[A-Za-z0-9+/]+={0,2} \d+")
LONGEST_LINE = 2000
MOST_SPECIAL = 2**16  # Llama 3 has 256


def is_tiktoken(path: Path) -> bool:
    """Whether the first line has this format."""
    with path.open("rb") as file:
        return bool(_LINE.fullmatch(file.readline(LONGEST_LINE).rstrip(b"\r\n")))


def read_tiktoken(path: Path, added: Mapping[int, str], bos: str | None) -> tokenizers.Tokenizer:
    """The tokenizer, converted by transformers.

    Args:
        added: the special tokens by id. As in transformers, ids between them get names of their own.
        bos: the token to put before each text.

    Raises:
        InputError: the file is malformed, or there are no special tokens behind its own.
    """
    from transformers.convert_slow_tokenizer import TikTokenConverter  # slow to import; does not import torch

    ranks = _ranks(path)
    if not added or not len(ranks) <= max(added) < len(ranks) + MOST_SPECIAL:
        raise InputError(
            f"{path} is a tiktoken file, without special tokens; add the model's tokenizer.json, or its "
            f"tokenizer_config.json, whose added_tokens_decoder lists them from id {len(ranks)} on"
        )
    special = [added.get(index, f"<|reserved_token_{index}|>") for index in range(len(ranks), max(added) + 1)]
    converter = TikTokenConverter(str(path), extra_special_tokens=special)
    converter.load_tiktoken_bpe = lambda _: ranks  # type: ignore[method-assign]  # its own needs the package tiktoken
    tokenizer = converter.converted()
    if bos and tokenizer.token_to_id(bos) is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[bos, "$A"],
            special_tokens=[(bos, tokenizer.token_to_id(bos))],  # type: ignore[list-item]
        )
    return tokenizer


def _ranks(path: Path) -> dict[bytes, int]:
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error):
            raise InputError(f"{path}:{number}: expected a token in base64 and its rank") from None
    if sorted(ranks.values()) != list(range(len(ranks))) or not all(bytes([byte]) in ranks for byte in range(256)):
        raise InputError(f"{path}: expected the ranks 0, 1, 2, ... once each, and a token for each byte")
    return ranks
