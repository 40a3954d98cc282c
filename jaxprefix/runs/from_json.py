"""Dataclasses of settings from JSON values, checked against the annotated types of their fields."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

from jaxprefix._version import __version__
from jaxprefix.errors import InputError
from jaxprefix.io.messages import short_repr
from jaxprefix.io.values import value_of

Settings = TypeVar("Settings")


def from_json(kind: type[Settings], values: Mapping[str, Any], within: str = "") -> Settings:
    """`kind(**values)`. InputError names a setting that is unknown or has the wrong type."""
    types: dict[str, Any] = {field.name: field.type for field in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(values) - set(types)):
        raise InputError(f"unknown setting {short_repr(within + unknown[0])}; this is jaxprefix {__version__}")
    return kind(**{name: _value(types[name], values, name, within) for name in values})


def _value(kind: Any, values: Mapping[str, Any], name: str, within: str) -> Any:
    if is_dataclass(kind):
        return from_json(kind, value_of(values, name, dict, within), f"{within}{name}.")  # type: ignore[arg-type]
    value = value_of(values, name, kind, within)
    return Path(value) if value is not None and Path in (kind, *get_args(kind)) else value
