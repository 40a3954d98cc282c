"""Checked values of a config.json. An InputError names the key and its value.

The bounds are far above every published model, but a wrong size cannot fill the memory before the weights contradict
it.
"""

from collections.abc import Mapping
from typing import Any

from jaxprefix.errors import InputError
from jaxprefix.io.messages import shown

LARGEST_SIZE = 2**24  # the largest dimension
LARGEST_NUMBER = 1e30  # float32 ends at 3.4e38


def flag(values: Mapping[str, Any], key: str) -> bool:
    """A boolean; false if it is absent or null."""
    value = values.get(key)
    if value is not None and not isinstance(value, bool):
        raise InputError(f"{key} is {shown(value)}; expected true or false")
    return bool(value)


def number(values: Mapping[str, Any], key: str, above: bool = False) -> float:
    """A number of at least 0, or above 0."""
    value = _given(values, key)
    if not (0 < value if above else 0 <= value) or not value <= LARGEST_NUMBER:
        least = "more than 0" if above else "0 or more"
        raise InputError(f"{key} is {shown(value)}; expected {least}, and at most {LARGEST_NUMBER:g}")
    return float(value)


def positive(values: Mapping[str, Any], key: str, default: int | None = None, most: int = LARGEST_SIZE) -> int:
    """A whole number from 1 to `most`; `default` if it is absent or null."""
    value = _given(values, key, default)
    if value < 1 or (isinstance(value, float) and not value.is_integer()):
        raise InputError(f"{key} is {shown(value)}; expected a whole number of at least 1")
    if value > most:
        raise InputError(f"{key} is {shown(value)}; expected at most {most}")
    return int(value)


def _given(values: Mapping[str, Any], key: str, default: int | None = None) -> int | float:
    value = values.get(key)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{key} is {'missing' if value is None else shown(value)}; expected a number")
    return value
