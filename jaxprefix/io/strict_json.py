"""JSON that others wrote, read strictly: of bounded depth, without a key that stands twice, and all of it Unicode.

Python's own reader takes the last of two equal keys, recurses until its stack ends, and lets half a surrogate pair
through, which fails much later, wherever the text is first written.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from jaxprefix.errors import InputError
from jaxprefix.io.messages import one_line, short_repr

DEEPEST = 100  # objects and lists inside each other
LARGEST = 2**26  # bytes of a file of settings; those of real models have less than 2**20


def parse(content: bytes) -> Any:
    """The value that the content is; InputError says in one line why it is none, and the caller in which file."""
    try:
        found = _DECODER.decode(content.decode("utf-8"))
    except RecursionError:
        raise InputError(f"nested deeper than {DEEPEST} levels") from None
    except ValueError as error:  # malformed, not UTF-8, a key twice, or an integer of thousands of digits
        raise InputError(one_line(error)) from None
    # Nothing else can be deep or hold a surrogate; most rows need no second look.
    if content.count(b"[") + content.count(b"{") > DEEPEST or b"\\ud" in content or b"\\uD" in content:
        _check(found)
    return found


def read_object(path: Path) -> dict[str, Any]:
    """The object in a file of settings; InputError names the file and what is wrong in it."""
    try:
        if path.stat().st_size > LARGEST:
            raise InputError(f"{path} has {path.stat().st_size} bytes; expected settings, at most {LARGEST}")
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    try:
        found = parse(content)
    except InputError as error:
        raise InputError(f"{path} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise InputError(f"{path} holds a {type(found).__name__}; expected an object")
    return found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise InputError(f"the key {short_repr(twice)} stands twice in one object")
    return found


def _check(found: Any) -> None:
    level, depth = [found], 0
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
        if depth > DEEPEST + 1:  # the innermost level are plain values
            raise InputError(f"nested deeper than {DEEPEST} levels")


def check_unicode(text: str) -> None:
    """InputError for half a surrogate pair, which can be neither encoded nor written."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"not valid Unicode, half a surrogate pair: {text[: error.end][-40:]!r}") from None


_DECODER = json.JSONDecoder(object_pairs_hook=_object)
