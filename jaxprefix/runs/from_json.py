"""Dataclasses of settings from JSON's plain values: every field of its annotated type, and none that there is not."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from jaxprefix._version import __version__
from jaxprefix.errors import InputError
from jaxprefix.io.messages import shown

Settings = TypeVar("Settings")

WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    Path: "a path",
    dict: "an object",
    NoneType: "null",
}
LARGEST_WHOLE, LARGEST = 2**63 - 1, 1e30


def build(kind: type[Settings], values: Mapping[str, Any], within: str = "") -> Settings:
    """`kind(**values)`; InputError names the setting that is unknown, or not of its type."""
    types: dict[str, Any] = {each.name: each.type for each in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(values) - set(types)):
        raise InputError(
            f"unknown setting {shown(within + unknown[0])} in the run's configuration; this is jaxprefix {__version__}"
        )
    return kind(**{name: _value(types[name], value, within + name) for name, value in values.items()})


def is_of(kind: Any, value: object) -> bool:
    """Whether a JSON value is of a type; true and false are no numbers, and numbers are finite."""
    if get_origin(kind) in (Union, UnionType):
        return any(is_of(each, value) for each in get_args(kind))
    if get_origin(kind) is Literal:
        return isinstance(value, str) and value in get_args(kind)
    if kind is Path:
        return isinstance(value, str)
    if kind is float:
        return type(value) in (int, float) and -LARGEST <= value <= LARGEST  # type: ignore[operator]
    return type(value) is kind and (kind is not int or abs(value) <= LARGEST_WHOLE)  # type: ignore[arg-type]


def words(kind: Any) -> str:
    """What a type is called in a message."""
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(words(each) for each in get_args(kind))
    if get_origin(kind) is Literal:
        return ", ".join(get_args(kind))
    return WORDS[kind]


def _value(kind: Any, value: Any, name: str) -> Any:
    if is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise InputError(f"{name} is {shown(value)}; expected an object")
        return build(kind, value, f"{name}.")  # type: ignore[arg-type]
    if not is_of(kind, value):
        raise InputError(f"{name} is {shown(value)}; expected {words(kind)}")
    return Path(value) if value is not None and Path in (kind, *get_args(kind)) else value
