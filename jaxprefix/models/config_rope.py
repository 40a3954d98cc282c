"""The rotary embedding of a config.json: `rope_theta` and its scaling, in the places where files have them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import log
from typing import Any

from jaxprefix.errors import InputError
from jaxprefix.io.messages import short_repr
from jaxprefix.io.values import number, positive, value_of
from jaxprefix.models.config_keys import MOST_POSITIONS, Problems, Values, without_nulls

LLAMA, LLAMA2_THETA, LLAMA3_VOCABULARY = "LlamaForCausalLM", 10_000.0, 128_256
ORIGINAL = "original_max_position_embeddings"
SCALING_KEYS = {  # by the kind of Rope
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", ORIGINAL),
    "yarn": ("factor", ORIGINAL, "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"),
}


@dataclass(frozen=True)
class Rope:
    """Rotary embedding (arXiv:2104.09864): its base, and the scaling of its frequencies for long texts.

    `kind` is "default", "linear" (all frequencies divided by `factor`), "llama3" (low frequencies divided, high ones
    kept, interpolated between; Llama 3.1's `rope_scaling`) or "yarn" (the same with a ramp over the index of the
    frequency; arXiv:2309.00071).
    """

    theta: float
    kind: str = "default"
    factor: float = 1.0
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    original_positions: int = 8192
    truncate: bool = True  # YaRN's ramp begins and ends at whole indices
    attention_factor: float = 1.0  # of queries and keys in YaRN


def read_rope(values: Values, architecture: str, problems: Problems) -> Rope:
    """The rotary embedding; its theta is 0 where there is a problem."""
    theta, scaling = problems.attempt(_theta, values, architecture), problems.attempt(_scaling, values)
    return replace(scaling[0] if scaling else Rope(0), theta=theta or 0)


def notes(values: Values, architecture: str) -> tuple[list[str], list[str]]:
    """The keys of the scaling that are ignored, and a line if `rope_theta` is missing. The values must be valid."""
    missing = f"rope_theta is missing: {_theta(values, architecture):,.0f}, as transformers' {architecture} assumes"
    return _scaling(values)[1], [] if _thetas(values) else [missing]


def _ropes(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """`rope_parameters` (transformers 5) and `rope_scaling` (4)."""
    new, old = (value_of(values, key, dict | None) or {} for key in ("rope_parameters", "rope_scaling"))
    return without_nulls(new), without_nulls(old)


def _scaling(values: Mapping[str, Any]) -> tuple[Rope, list[str]]:
    """The scaling, as a Rope of any theta, and the keys of it that are ignored."""
    new, old = ({key: value for key, value in rope.items() if key != "rope_theta"} for rope in _ropes(values))
    if new and old and new != old:
        raise InputError(
            f"rope_scaling and rope_parameters contradict each other: {short_repr(old)} and {short_repr(new)}"
        )
    scaling, name = new or old, "rope_parameters" if new else "rope_scaling"
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind not in tuple(SCALING_KEYS):
        raise InputError(f"rope_type {short_repr(kind)} is not supported; expected {', '.join(SCALING_KEYS)}")
    if scaling.get("type", kind) != kind:
        raise InputError(
            f"rope_type {kind!r} and type {short_repr(scaling['type'])} contradict each other; expected one"
        )
    for place in (values, scaling):
        if place.get("partial_rotary_factor", 1) != 1:
            factor = short_repr(place["partial_rotary_factor"])
            raise InputError(f"partial_rotary_factor is {factor}; only 1, rotation of whole heads, is supported")
    unread = sorted(set(scaling) - {"rope_type", "type", "partial_rotary_factor", *SCALING_KEYS[kind]})
    if unread and not {"rope_type", "type"} & set(scaling):
        raise InputError(f"{name} has {short_repr(unread[0])} and no rope_type; expected {', '.join(SCALING_KEYS)}")
    return _rope(kind, scaling, values), [f"{name}.{key}" for key in unread]


def _rope(kind: str, scaling: Mapping[str, Any], values: Mapping[str, Any]) -> Rope:
    if kind == "default":
        return Rope(0)
    if kind == "linear":
        return Rope(0, "linear", factor=number(scaling, "factor", above=True))
    if kind == "yarn":
        return _yarn(scaling, values)
    low, high = number(scaling, "low_freq_factor", above=True), number(scaling, "high_freq_factor", above=True)
    if low >= high:
        raise InputError(
            f"low_freq_factor {low} is not below high_freq_factor {high}; the frequencies between them are interpolated"
        )
    return Rope(0, "llama3", number(scaling, "factor", above=True), low, high, _original(scaling, values))


def _yarn(scaling: Mapping[str, Any], values: Mapping[str, Any]) -> Rope:
    """Missing and zero values have the defaults of transformers."""

    def given(key: str, default: float) -> float:
        return number(scaling, key) or default if key in scaling else default

    factor = number(scaling, "factor", least=1)
    fast, slow = given("beta_fast", 32.0), given("beta_slow", 1.0)
    scale, scale_all = given("mscale", 0.0), given("mscale_all_dim", 0.0)
    attention = _yarn_scale(factor, 1.0)
    if scale and scale_all:
        attention = _yarn_scale(factor, scale) / _yarn_scale(factor, scale_all)
    if "attention_factor" in scaling:
        attention = number(scaling, "attention_factor", above=True)
    truncate = value_of(scaling, "truncate", bool | None)
    return Rope(0, "yarn", factor, slow, fast, _original(scaling, values), truncate is not False, attention)


def _yarn_scale(factor: float, scale: float) -> float:
    return 0.1 * scale * log(factor) + 1


def _original(scaling: Mapping[str, Any], values: Mapping[str, Any]) -> int:
    """The positions that the model was trained with before the scaling."""
    original = positive(scaling, ORIGINAL, most=MOST_POSITIONS)
    if values.get(ORIGINAL, original) != original:
        raise InputError(
            f"{ORIGINAL} is {short_repr(values[ORIGINAL])} at the top and {original} in the scaling; expected one value"
        )
    return original


def _thetas(values: Mapping[str, Any]) -> list[Any]:
    """The values of `rope_theta`, wherever one is given."""
    return [place["rope_theta"] for place in (values, *_ropes(values)) if place.get("rope_theta") is not None]


def _theta(values: Mapping[str, Any], architecture: str) -> float:
    """The value of `rope_theta`, which must be the same wherever it is given.

    Files of Llama 2's time leave it out, and mean transformers' default. Llama 3 has another one.
    """
    given = _thetas(values)
    if not given:
        kinds = [rope.get("rope_type", rope.get("type")) for rope in _ropes(values)]
        if architecture != LLAMA or "llama3" in kinds or values.get("vocab_size") == LLAMA3_VOCABULARY:
            raise InputError(
                "rope_theta is neither at the top nor in rope_parameters; without it every position would be wrong"
            )
        return LLAMA2_THETA
    if any(value != given[0] for value in given):
        raise InputError(
            f"rope_theta is {short_repr(given[0])} at the top and {short_repr(given[-1])} in rope_parameters; "
            "expected one value"
        )
    return number({"rope_theta": given[0]}, "rope_theta", above=True)
