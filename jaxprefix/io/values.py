"""Type checks for values from JSON files. An InputError names the key, the value and the expected type.

The bounds are far above every published model, and low enough that no list or shape of such a size fills the memory
before the weights contradict it.
"""

from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from jaxprefix.errors import InputError
from jaxprefix.io.messages import short_repr

Type = type | UnionType  # a class, a union of classes such as `int | None`, or a Literal
WORDS: Mapping[Type, str] = {
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


def matches(kind: Type, value: object) -> bool:
    """Whether a JSON value has a type. True and false are not numbers, and numbers are finite."""
    if get_origin(kind) in (Union, UnionType):
        return any(matches(member, value) for member in get_args(kind))
    if get_origin(kind) is Literal:
        return isinstance(value, str) and value in get_args(kind)
    if kind is Path:
        return isinstance(value, str)
    if kind is float:
        return type(value) in (int, float) and abs(value) <= LARGEST_NUMBER  # type: ignore[arg-type]
    return type(value) is kind and (kind is not int or abs(value) <= LARGEST_WHOLE)  # type: ignore[arg-type]


def describe_type(kind: Type) -> str:
    """The name of a type in messages."""
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(describe_type(member) for member in get_args(kind))
    if get_origin(kind) is Literal:
        return ", ".join(get_args(kind))
    return WORDS[kind]


def value_of(values: Mapping[str, object], key: str, kind: Type, prefix: str = "") -> Any:
    """The value of a key, of this type; None for a missing key if the type allows it. `prefix` starts the message."""
    if not matches(kind, values.get(key)):
        raise InputError(f"{prefix}{key} is {_repr_of(values, key)}; expected {describe_type(kind)}")
    return values.get(key)


def flag(values: Mapping[str, object], key: str) -> bool:
    """The value of a boolean; False if it is missing or null."""
    return bool(value_of(values, key, bool | None))


def number(values: Mapping[str, object], key: str, least: float = 0, above: bool = False) -> float:
    """A number of at least `least`, or greater than `least` if `above`."""
    value: Any = values.get(key)
    if not matches(float, value) or value < least or (above and value == least):
        bound = "above" if above else "of at least"
        raise InputError(
            f"{key} is {_repr_of(values, key)}; expected a number {bound} {least:g}, and at most {LARGEST_NUMBER:g}"
        )
    return float(value)


def positive(values: Mapping[str, object], key: str, default: int | None = None, most: int = LARGEST_SIZE) -> int:
    """A whole number from 1 to `most`, which may be written as 2.0; `default` for a missing key or null."""
    value: Any = default if values.get(key) is None else values[key]
    if type(value) not in (int, float) or not value >= 1 or value % 1:
        raise InputError(f"{key} is {_repr_of(values, key)}; expected a whole number of at least 1")
    if value > most:
        raise InputError(f"{key} is {short_repr(value)}; expected at most {most}")
    return int(value)


def _repr_of(values: Mapping[str, object], key: str) -> str:
    return short_repr(values[key]) if key in values else "missing"
