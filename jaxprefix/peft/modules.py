"""Which projections PEFT selects by a setting such as target_modules."""

import math
import re
from collections.abc import Sequence

import regex

from jaxprefix.errors import InputError
from jaxprefix.io.messages import one_line, short_repr
from jaxprefix.models.hooks import PROJECTIONS
from jaxprefix.models.weights import MODULES
from jaxprefix.peft.settings import Settings

# Bounds of a pattern in target_modules. The patterns of PEFT's examples have 100 characters and take microseconds.
MAX_PATTERN, MAX_REPETITIONS, MAX_SECONDS = 2000, 10_000, 1.0


def check_selected(settings: Settings, targets: Sequence[str], default: Sequence[str]) -> None:
    """InputError if PEFT selects other projections from the settings than `targets`, those of the tensors.

    `default` are those that PEFT selects if target_modules is missing.
    """
    modules = select(settings, "target_modules", default) - select(settings, "exclude_modules", [])
    if modules != set(targets):
        raise InputError(
            f"target_modules {short_repr(settings.get('target_modules'))} means "
            f"{', '.join(sorted(modules)) or 'no projection'}, the file has {', '.join(targets)}; "
            "the two files are not of one adapter; export it again"
        )


def select(settings: Settings, key: str, default: Sequence[str]) -> set[str]:
    """The projections that PEFT selects by `key`: names or suffixes of names, a pattern, or all."""
    modules = settings.get(key) or default
    if modules == "all-linear":
        return set(PROJECTIONS)
    if isinstance(modules, str):
        paths = {name: f"model.layers.0.{MODULES[name]}{name}" for name in PROJECTIONS}
        return {name for name, path in paths.items() if _matches(modules, path, key)}
    if not isinstance(modules, list) or not all(isinstance(name, str) for name in modules):
        raise InputError(f"{key} is {short_repr(modules)}; expected names of modules, or a pattern")
    return {name.rpartition(".")[2] for name in modules} & set(PROJECTIONS)


def _matches(pattern: str, module: str, key: str) -> bool:
    """Whether the pattern matches, in bounded time.

    PEFT uses Python's `re`, which some patterns keep busy for ever. `regex` has the same syntax and a timeout.
    """
    if len(pattern) > MAX_PATTERN:
        raise InputError(f"{key} is a pattern of {len(pattern)} characters; expected at most {MAX_PATTERN}")
    # regex expands "a{99}" when it compiles a pattern, and the timeout bounds only the matching.
    if math.prod(max(int(count), 1) for count in re.findall(r"[{,]\s*(\d+)", pattern)) > MAX_REPETITIONS:
        raise InputError(f"{key} is {short_repr(pattern)}, a pattern of more than {MAX_REPETITIONS} repetitions")
    try:
        return regex.fullmatch(pattern, module, timeout=MAX_SECONDS) is not None
    except (regex.error, TimeoutError, OverflowError, RecursionError, MemoryError) as error:
        raise InputError(
            f"{key} is {short_repr(pattern)}, a pattern that cannot be matched: {one_line(error)}"
        ) from None
