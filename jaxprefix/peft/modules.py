"""The modules that a configuration adapts, and the rank and scale of each in a LORA, by PEFT's rules.

Every rule is applied to the path of a module, such as "model.layers.3.self_attn.q_proj", as PEFT applies it.
"""

import math
import re
import time
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple, TypeVar

import regex

from jaxprefix.errors import InputError
from jaxprefix.io.messages import one_line, short_repr
from jaxprefix.io.values import LARGEST_NUMBER, flag, number, value_of
from jaxprefix.models.parameters import PROJECTIONS, module_path
from jaxprefix.peft.settings import Settings, whole

# Bounds of a pattern. The patterns of PEFT's examples have 100 characters and take microseconds.
MAX_PATTERN, MAX_REPETITIONS, MAX_SECONDS = 2000, 10_000, 1.0
Value = TypeVar("Value", int, float)


class Module(NamedTuple):
    """A projection of one layer."""

    projection: str
    layer: int

    @property
    def path(self) -> str:
        return module_path(self.projection).format(self.layer)


def check_selected(settings: Settings, adapted: Collection[str], layers: int, default: Sequence[str]) -> list[Module]:
    """The selected modules. InputError if they are of other projections than `adapted`, those of the tensors."""
    modules = selected_modules(settings, layers, default)
    if (selected := {module.projection for module in modules}) != set(adapted):
        raise InputError(
            f"target_modules {short_repr(settings.get('target_modules'))} means "
            f"{', '.join(sorted(selected)) or 'no projection'}, the file has "
            f"{', '.join(name for name in PROJECTIONS if name in adapted)}; "
            "the two files are not of one adapter; export it again"
        )
    return modules


def selected_modules(settings: Settings, layers: int, default: Sequence[str]) -> list[Module]:
    """The modules that target_modules, exclude_modules, layers_to_transform and layers_pattern select.

    `default` are PEFT's target_modules for the type of adapter, if the settings have none.
    """
    targets = settings.get("target_modules") or list(default)
    if isinstance(targets, str) and targets.lower() == "all-linear":
        targeted: Callable[[str], bool] = lambda path: True  # noqa: E731
    else:
        targeted = by_name_or_pattern(targets, "target_modules")
    excluded = by_name_or_pattern(settings.get("exclude_modules") or [], "exclude_modules")
    in_layers = _by_layer(settings)
    modules = [Module(projection, layer) for projection in PROJECTIONS for layer in range(layers)]
    return [
        module for module in modules if targeted(module.path) and not excluded(module.path) and in_layers(module.path)
    ]


def ranks_and_scales(settings: Settings, modules: list[Module]) -> dict[Module, tuple[int, float]]:
    """The rank r of each module, and the factor of its term: alpha/r, or alpha/√r with use_rslora."""
    values = {"lora_alpha": 8} | settings
    default = whole(settings, "r"), number(values, "lora_alpha", least=-LARGEST_NUMBER)
    rank_of = _by_pattern(settings, "rank_pattern", whole, default[0])
    alpha_of = _by_pattern(settings, "alpha_pattern", _number, default[1])
    root = flag(settings, "use_rslora")
    result = {}
    for module in modules:
        rank = rank_of(module.path)
        result[module] = rank, alpha_of(module.path) / (math.sqrt(rank) if root else rank)
    return result


def _number(values: Settings, name: str) -> float:
    return number(values, name, least=-LARGEST_NUMBER)


def by_name_or_pattern(modules: object, key: str) -> Callable[[str], bool]:
    """Whether a path is selected: by a pattern that matches all of it, or by a list of its last parts."""
    if isinstance(modules, str):
        return Pattern(modules, key).matches
    if not isinstance(modules, list) or not all(isinstance(name, str) for name in modules):
        raise InputError(f"{key} is {short_repr(modules)}; expected names of modules, or a pattern")
    endings = tuple(f".{name}" for name in modules)
    return lambda path: f".{path}".endswith(endings)


def _by_layer(settings: Settings) -> Callable[[str], bool]:
    """Whether a path belongs to layers_to_transform, whose numbers follow layers_pattern in the path."""
    indices = value_of(settings, "layers_to_transform", int | list | None)
    names = value_of(settings, "layers_pattern", str | list | None) or []
    if (indices is not None or names) and isinstance(settings.get("target_modules"), str):
        raise InputError(
            f"layers_to_transform is {short_repr(indices)} and target_modules is a pattern, which PEFT refuses too; "
            "select the layers in the pattern"
        )
    if names and indices is None:
        raise InputError(f"layers_pattern is {short_repr(names)} without layers_to_transform; PEFT refuses this too")
    indices = [indices] if isinstance(indices, int) else indices or []
    names = [names] if isinstance(names, str) else names
    if not all(type(index) is int for index in indices) or not all(isinstance(name, str) for name in names):
        raise InputError(
            f"layers_to_transform is {short_repr(indices)} with layers_pattern {short_repr(names)}; expected whole "
            "numbers and names of lists of layers, such as layers"
        )
    if not indices:
        return lambda path: True
    texts = [rf"(?:^|.*?\.){name}\.(?P<idx>\d+)\." for name in names] or [r".*?\.[^.]*\.(?P<idx>\d+)\."]
    patterns = [Pattern(text, "layers_pattern") for text in texts]

    def selected(path: str) -> bool:
        index = next((found for pattern in patterns if (found := pattern.index(path)) is not None), None)
        return index in indices

    return selected


def _by_pattern(
    settings: Settings, key: str, read: Callable[[Settings, str], Value], default: Value
) -> Callable[[str], Value]:
    """The value of the first pattern that matches the end of a path; the default if none does."""
    values = value_of(settings, key, dict | None) or {}
    table = {f"{key} of {name!r:.80}": value for name, value in values.items()}
    patterns = [
        (Pattern(rf"(.*\.)?({name})", key), read(table, label)) for name, label in zip(values, table, strict=True)
    ]
    return lambda path: next((value for pattern, value in patterns if pattern.matches(path)), default)


class Pattern:
    """A pattern from a file, which is matched in bounded time.

    PEFT uses Python's `re`, which some patterns keep busy for ever. `regex` has the same syntax and a timeout.
    """

    def __init__(self, text: str, key: str):
        self.text, self.key, self.seconds = text, key, MAX_SECONDS
        if len(text) > MAX_PATTERN:
            raise InputError(f"{key} is a pattern of {len(text)} characters; expected at most {MAX_PATTERN}")
        # regex expands "a{99}" when it compiles a pattern, and the timeout bounds only the matching.
        if math.prod(max(int(count), 1) for count in re.findall(r"[{,]\s*(\d+)", text)) > MAX_REPETITIONS:
            raise InputError(f"{key} is {short_repr(text)}, a pattern of more than {MAX_REPETITIONS} repetitions")

    def matches(self, path: str) -> bool:
        """Whether the pattern matches the whole path."""
        return self._match(regex.fullmatch, path) is not None

    def index(self, path: str) -> int | None:
        """The number in the group "idx" of a match at the start of the path."""
        match = self._match(regex.match, path)
        return int(match["idx"]) if match else None

    def _match(self, how: Callable[..., regex.Match | None], path: str) -> regex.Match | None:
        started = time.monotonic()
        try:
            return how(self.text, path, timeout=max(self.seconds, 0.001))
        except (regex.error, TimeoutError, OverflowError, RecursionError, MemoryError) as error:
            raise InputError(
                f"{self.key} is {short_repr(self.text)}, a pattern that cannot be matched: {one_line(error)}"
            ) from None
        finally:
            self.seconds -= time.monotonic() - started
