"""A strict JSON reader: bounded depth, no duplicate keys, and valid Unicode.

The reader of Python takes the last of two equal keys, recurses until the stack overflows, and accepts half a surrogate
pair, which fails much later, when the text is first written.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from jaxprefix.errors import InputError
from jaxprefix.io.messages import one_line, short_repr

DEEPEST = 100  # nested objects and lists
LARGEST = 2**26  # bytes of a settings file; those of real models have less than 2**20


def parse(content: bytes) -> Any:
    """The value of the content. InputError if it is not valid; the caller adds the name of the file."""
    try:
        value = _DECODER.decode(content.decode("utf-8"))
    except RecursionError:
        raise InputError(f"nested deeper than {DEEPEST} levels") from None
    except ValueError as error:  # malformed, not UTF-8, a key twice, or an integer of thousands of digits
        raise InputError(one_line(error)) from None
    # Other content is neither deep nor has surrogates; most rows skip the check.
    if content.count(b"[") + content.count(b"{") > DEEPEST or b"\\ud" in content or b"\\uD" in content:
        _check(value)
    return value


def read_object(path: Path) -> dict[str, Any]:
    """The object in a settings file. InputError names the file and the problem."""
    try:
        if path.stat().st_size > LARGEST:
            raise InputError(f"{path} has {path.stat().st_size} bytes; expected at most {LARGEST} for settings")
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    try:
        value = parse(content)
    except InputError as error:
        raise InputError(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} holds a {type(value).__name__}; expected an object")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        duplicate = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise InputError(f"the key {short_repr(duplicate)} occurs twice in one object")
    return values


def _check(root: Any) -> None:
    level, depth = [root], 0
    while level:
        below: list[Any] = []
        for value in level:
            if isinstance(value, str):
                check_unicode(value)
            elif isinstance(value, list):
                below += value
            elif isinstance(value, dict):
                below += value.keys()
                below += value.values()
        level, depth = below, depth + 1
        if depth > DEEPEST + 1:  # the innermost level has plain values
            raise InputError(f"nested deeper than {DEEPEST} levels")


def check_unicode(text: str) -> None:
    """InputError for half a surrogate pair, which cannot be encoded."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"not valid Unicode, half a surrogate pair: {text[: error.end][-40:]!r}") from None


_DECODER = json.JSONDecoder(object_pairs_hook=_object)
