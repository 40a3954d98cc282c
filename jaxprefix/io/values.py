"""Values that others wrote in JSON, each of its kind: an InputError names the key, what it holds and what was expected.

The bounds are far above every published model, and low enough that nothing which is listed or shaped by a size can fill
the memory before the weights are there to contradict it.
"""

from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from jaxprefix.errors import InputError
from jaxprefix.io.messages import short_repr

WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    Path: "a path",
    list: "a list",
    dict: "an object",
    NoneType: "null",
}
LARGEST_SIZE = 2**24  # of a dimension
LARGEST_WHOLE = 2**63 - 1
LARGEST_NUMBER = 1e30  # float32 ends at 3.4e38


def matches(kind: Any, value: object) -> bool:
    """Whether a JSON value is of a type; true and false are no numbers, and numbers are finite."""
    if get_origin(kind) in (Union, UnionType):
        return any(matches(each, value) for each in get_args(kind))
    if get_origin(kind) is Literal:
        return isinstance(value, str) and value in get_args(kind)
    if kind is Path:
        return isinstance(value, str)
    if kind is float:
        return type(value) in (int, float) and abs(value) <= LARGEST_NUMBER  # type: ignore[arg-type]
    return type(value) is kind and (kind is not int or abs(value) <= LARGEST_WHOLE)  # type: ignore[arg-type]


def describe_type(kind: Any) -> str:
    """What a type is called in a message."""
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(describe_type(each) for each in get_args(kind))
    if get_origin(kind) is Literal:
        return ", ".join(get_args(kind))
    return WORDS[kind]


def value_of(values: Mapping[str, Any], key: str, kind: Any, where: str = "") -> Any:
    """The value of a key, of this kind; None for an absent key if the kind admits it. `where` begins the message."""
    if not matches(kind, values.get(key)):
        raise InputError(f"{where}{key} is {_given(values, key)}; expected {describe_type(kind)}")
    return values.get(key)


def flag(values: Mapping[str, Any], key: str) -> bool:
    """True, or false where it is absent or null."""
    return bool(value_of(values, key, bool | None))


def number(values: Mapping[str, Any], key: str, least: float = 0, above: bool = False) -> float:
    """A number of at least `least`, or `above` it."""
    value: Any = values.get(key)
    if not matches(float, value) or value < least or (above and value == least):
        bound = "above" if above else "of at least"
        raise InputError(
            f"{key} is {_given(values, key)}; expected a number {bound} {least:g}, and at most {LARGEST_NUMBER:g}"
        )
    return float(value)


def positive(values: Mapping[str, Any], key: str, default: int | None = None, most: int = LARGEST_SIZE) -> int:
    """A whole number from 1 to `most`, which may be written as 2.0; `default` stands for an absent key or null."""
    value: Any = default if values.get(key) is None else values[key]
    if type(value) not in (int, float) or not value >= 1 or value % 1:
        raise InputError(f"{key} is {_given(values, key)}; expected a whole number of at least 1")
    if value > most:
        raise InputError(f"{key} is {short_repr(value)}; expected at most {most}")
    return int(value)


def _given(values: Mapping[str, Any], key: str) -> str:
    return short_repr(values[key]) if key in values else "missing"
