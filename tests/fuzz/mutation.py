"""Nearly valid documents and bytes: a valid one, and a few changes of it, all of them read off a few random bytes.

Such a recipe has six bytes for each change: three numbers, taken modulo whatever there is to choose from. So a case
costs little, which is what makes 100,000 of them affordable, and hypothesis finds fewer and smaller bytes: a simpler
case.
"""

import json
import marshal
import math
import struct
from collections.abc import Callable, Sequence
from typing import Any

Change = tuple[int, int, int]  # what is done, where, and with what
SHORTEST, LONGEST = 6, 24  # bytes of a recipe
Maker = Callable[[bytes], bytes]  # from a recipe to the content of a file

# A quoted placeholder stands for what json.dumps cannot write, and is replaced afterwards.
WRITTEN = {
    '"@deep@"': "[" * 3000 + "]" * 3000,
    '"@objects@"': '{"a":' * 1500 + "1" + "}" * 1500,
    '"@digits@"': "9" * 5000,
    '"@exponent@"': "1e999999",
}
EDGES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 3, 7, 255, 256, 511, 2**31 - 1, 2**31, 2**32, 2**60, 2**63, 2**64, 10**12),
    *(10**400, -(10**400), 0.5, -0.0, 1.0, 2.5, 1e-300, 1e30, 1e308, math.nan, math.inf, -math.inf),
    *(
        "",
        " ",
        "a",
        "0",
        "1",
        "nan",
        "\n",
        "a\nb",
        "\x1b[2J",
        "\0",
        "\ud800",
        "\udfff\ud800",
        "\ufeff",
        "\u2028",
        "é🙂",
    ),
    *("x" * 5000, "../x", "../../outside.safetensors", "/etc/passwd", "~nobody/x", "a/b", ".", "..", "x" * 300),
    *(
        "(a+)+$",
        "(((((((((.*)*)*)*)*)*)*)*)*)x",
        "(",
        "[",
        "(?P<a>",
        "(a{9999}){9999}",
        "all",
        "top:1",
        "0:999999999999",
    ),
    *(
        [],
        {},
        [[]],
        [None],
        [1, 2],
        ["a", "b"],
        ["a", 1],
        [{}],
        {"a": 1},
        {"": None},
        {"content": 1},
        {"a": {"b": [1]}},
    ),
    *(list(WRITTEN)[place].strip('"') for place in range(len(WRITTEN))),
]
BYTES = [
    *(
        b"",
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\xc3",
        b"\xed\xa0\x80",
        b"\n",
        b"\r\n",
        b'"',
        b"\\",
        b"{",
        b"}",
        b"[",
        b"]",
    ),
    *(b",", b":", b"null", b"NaN", b"-", b"1e400", b"\\ud800", b"\\u0000", b"9" * 5000, b"[" * 3000, b'{"a":' * 1200),
    *((2**count).to_bytes(8, "little") for count in (0, 31, 60, 63)),
    *(b"\xff" * 8, b"\x80" * 10, b"a" * 200_000),
]


def changes(recipe: bytes) -> list[Change]:
    starts = range(0, len(recipe) - 5, 6)
    return [struct.unpack_from("<HHH", recipe, start) for start in starts]


def document(valid: Any, changes: Sequence[Change]) -> Any:
    """A copy of a JSON value, changed at any depth."""
    found = [_copy(valid)]
    for what, where, which in changes:
        places = _places(found)
        holder, key = places[where % len(places)]
        DOCUMENT_CHANGES[what % len(DOCUMENT_CHANGES)](holder, key, which, places)
    return found[0] if found else None


def text(value: Any) -> bytes:
    """The text of a changed document."""
    written = json.dumps(value)
    for name, instead in WRITTEN.items():
        if name in written:
            written = written.replace(name, instead)
    return written.encode()


def content(valid: bytes, changes: Sequence[Change]) -> bytes:
    """Bytes with changes."""
    for what, where, which in changes:
        place = where % (len(valid) + 1)
        valid = BYTE_CHANGES[what % len(BYTE_CHANGES)](valid, place, which)
    return valid


def written(valid: Any) -> Maker:
    """Files of a JSON document: it is changed, its bytes are, or both; or the recipe itself, which is any bytes."""

    def make(recipe: bytes) -> bytes:
        found, way = changes(recipe), recipe[-1] % 16
        inside = len(found) - (way % 4 == 3)  # the last change is of bytes
        return recipe if way == 15 else content(text(document(valid, found[:inside])), found[inside:])

    return make


def harmed(*valid: bytes) -> Maker:
    """Files of any kind, one of the valid ones: its bytes are changed, or it is any bytes."""

    def make(recipe: bytes) -> bytes:
        return recipe if recipe[-1] % 16 == 15 else content(valid[recipe[-1] % len(valid)], changes(recipe))

    return make


Place = tuple[Any, Any]  # a list or an object, and an index or a key of it


def _copy(value: Any) -> Any:
    return marshal.loads(marshal.dumps(value))  # for plain values; many times faster than copy.deepcopy


def _places(root: list[Any]) -> list[Place]:
    found: list[Place] = []
    waiting: list[Any] = [root]
    while waiting:
        holder = waiting.pop()
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        found += [(holder, key) for key in keys]
        waiting += [holder[key] for key in keys if isinstance(holder[key], dict | list)]
    return found or [(root, 0)] if root else [([None], 0)]


def _replace(holder: Any, key: Any, which: int, places: list[Place]) -> None:
    holder[key] = _copy(EDGES[which % len(EDGES)])


def _remove(holder: Any, key: Any, which: int, places: list[Place]) -> None:
    del holder[key]


def _add(holder: Any, key: Any, which: int, places: list[Place]) -> None:
    value = _copy(EDGES[which % len(EDGES)])
    if isinstance(holder, dict):
        names = [name for _, name in places if isinstance(name, str)] + [
            each for each in EDGES if isinstance(each, str)
        ]
        holder[names[which % len(names)]] = value
    else:
        holder.insert(key, value)


def _move(holder: Any, key: Any, which: int, places: list[Place]) -> None:
    """Copies a value from elsewhere to here."""
    there, name = places[which % len(places)]
    if name in there if isinstance(there, dict) else name < len(there):
        holder[key] = _copy(there[name])


def _wrap(holder: Any, key: Any, which: int, places: list[Place]) -> None:
    holder[key] = [holder[key]] * (which % 3) if which % 2 else {"content": holder[key]}


def _as_text(holder: Any, key: Any, which: int, places: list[Place]) -> None:
    value = holder[key]
    edges = [each for each in EDGES if isinstance(each, str)]
    holder[key] = value + edges[which % len(edges)] if isinstance(value, str) else str(value)[:200]


def _nudge(holder: Any, key: Any, which: int, places: list[Place]) -> None:
    value = holder[key]
    if isinstance(value, int | float) and abs(value) < 1e300:
        holder[key] = value + (which % 5 - 2) if which % 3 else value * (1, -1, 2, 0.5, 10**6)[which % 5]


DOCUMENT_CHANGES: list[Callable[[Any, Any, int, list[Place]], None]] = [
    *(_replace, _replace, _remove, _add, _move, _wrap, _as_text, _nudge)
]
BYTE_CHANGES: list[Callable[[bytes, int, int], bytes]] = [
    lambda valid, place, which: valid[:place],
    lambda valid, place, which: valid[place:],
    lambda valid, place, which: valid[:place] + bytes([which % 256]) + valid[place + 1 :],
    lambda valid, place, which: valid[:place] + BYTES[which % len(BYTES)] + valid[place:],
    lambda valid, place, which: valid[:place] + valid[place + which % 64 :],
    lambda valid, place, which: valid[:place] + valid[place // 2 : place] + valid[place:],
    lambda valid, place, which: valid[:place] + BYTES[which % len(BYTES)] + valid[place + 8 :],
]
