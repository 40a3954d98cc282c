"""DecoderConfig: the config.json of a Llama or Mistral decoder in Hugging Face format, read strictly.

What changes a number is used or refused by name; `config_keys` says which keys these are. A port that skips keys in
silence ends with a wrong rotary base or without its sliding window.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jaxprefix.errors import InputError
from jaxprefix.io.messages import short_repr
from jaxprefix.io.strict_json import read_object
from jaxprefix.io.values import LARGEST_SIZE, flag, number, positive, value_of
from jaxprefix.models import config_keys
from jaxprefix.models.config_keys import Problems

MOST_LAYERS, MOST_POSITIONS = 10_000, 2**31 - 1
LLAMA, LLAMA2_THETA, LLAMA3_VOCABULARY = "LlamaForCausalLM", 10_000.0, 128_256
ORIGINAL = "original_max_position_embeddings"
SCALING_KEYS = {  # by the kind of Rope
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", ORIGINAL),
}


@dataclass(frozen=True)
class Rope:
    """Rotary embedding (arXiv:2104.09864): its base, and the scaling of its frequencies for long texts.

    `kind` is "default", "linear" (all frequencies divided by `factor`) or "llama3" (low frequencies divided, high ones
    kept, interpolated between; Llama 3.1's `rope_scaling`).
    """

    theta: float
    kind: str = "default"
    factor: float = 1.0
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    original_positions: int = 8192


@dataclass(frozen=True)
class DecoderConfig:
    """The sizes of a decoder. Hashable, so that it can be a static argument. hooks.py explains the letters."""

    vocabulary_size: int  # V, `vocab_size`
    hidden_size: int  # D
    intermediate_size: int  # F
    layers: int  # L, `num_hidden_layers`
    heads: int  # N, `num_attention_heads`
    kv_heads: int  # K, `num_key_value_heads`
    head_size: int  # H, `head_dim`
    norm_epsilon: float  # `rms_norm_eps`
    rope: Rope
    max_positions: int  # `max_position_embeddings`
    tied: bool = False  # `tie_word_embeddings`: the head is the embedding
    window: int | None = None  # `sliding_window`: a query attends to this many keys, its own included

    @classmethod
    def read(cls, directory: Path) -> "DecoderConfig":
        """The configuration in `directory/config.json`. An InputError names the file and all its problems."""
        path, values = _settings(directory)
        try:
            return cls.parse(values)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> "DecoderConfig":
        """The configuration from the object of a config.json."""
        architecture, problems = config_keys.architecture_of(values), Problems()
        window = problems.attempt(_window, values, architecture)
        values = config_keys.without_nulls(values)
        config_keys.check_supported(values, problems)
        sizes = _sizes(values, architecture, problems)
        theta = problems.attempt(_theta, values, architecture)
        scaling = problems.attempt(_scaling, values)
        config_keys.check_aliases(values, sizes | {"rope_theta": theta}, problems)
        tied = problems.attempt(flag, values, "tie_word_embeddings")
        problems.check()
        assert theta is not None and scaling is not None and tied is not None, "a value is missing without a problem"
        return cls(
            vocabulary_size=sizes["vocab_size"],
            hidden_size=sizes["hidden_size"],
            intermediate_size=sizes["intermediate_size"],
            layers=sizes["num_hidden_layers"],
            heads=sizes["num_attention_heads"],
            kv_heads=sizes["num_key_value_heads"],
            head_size=sizes["head_dim"],
            norm_epsilon=sizes["rms_norm_eps"],
            rope=replace(scaling[0], theta=theta),
            max_positions=sizes["max_position_embeddings"],
            tied=tied,
            window=window,
        )


def notes(directory: Path) -> list[str]:
    """Lines about `directory/config.json` for the user: what is ignored, and what it leaves out. It must be valid."""
    path, values = _settings(directory)
    architecture, values = config_keys.architecture_of(values), config_keys.without_nulls(values)
    lines = config_keys.ignored_line(values, _scaling(values)[1])
    if not _thetas(values):
        lines.append(
            f"rope_theta is missing: {_theta(values, architecture):,.0f}, as transformers' {architecture} assumes"
        )
    return [f"{path}: {line}" for line in lines]


def layer_range(text: str, layers: int) -> tuple[int, int]:
    """The layers `first` to `last - 1` of `layers` that `text` names: "all", "top:30", "2:32" or "top".

    "top" is all but the lowest sixteenth: the top 30 of 32, as in the study (arXiv:2510.24619), and all layers of a
    model with fewer than 16.
    """
    if text == "all":
        return 0, layers
    if text == "top":
        return layers // 16, layers
    start, _, end = text.partition(":") if len(text) < 20 else ("", "", "")
    if start == "top" and end.isdecimal() and 1 <= int(end) <= layers:
        return layers - int(end), layers
    if start.isdecimal() and end.isdecimal() and int(start) < int(end) <= layers:
        return int(start), int(end)
    raise InputError(
        f"layers {short_repr(text)} of a model of {layers}; expected all, top, top:N or FIRST:END, such as 2:{layers}"
    )


def _settings(directory: Path) -> tuple[Path, dict[str, Any]]:
    path = directory / "config.json"
    if not path.is_file():
        raise InputError(f"no config.json in {directory}; give a directory in Hugging Face layout")
    return path, read_object(path)


def _sizes(values: Mapping[str, Any], architecture: str, problems: Problems) -> dict[str, Any]:
    """The sizes by their keys in config.json; None where there is a problem."""
    sizes: dict[str, Any] = {}

    def whole(key: str, default: int | None = None, most: int = LARGEST_SIZE) -> int | None:
        sizes[key] = problems.attempt(positive, values, key, default, most)
        return sizes[key]

    whole("vocab_size")
    hidden = whole("hidden_size")
    whole("intermediate_size")
    whole("num_hidden_layers", most=MOST_LAYERS)
    heads = whole("num_attention_heads")
    # transformers' default depends on the family (Llama: all heads, Mistral: 8); only Llama's is safe.
    unknown_heads = heads is None and "num_key_value_heads" not in values
    kv_heads = None if unknown_heads else whole("num_key_value_heads", heads if architecture == LLAMA else None)
    unknown_size = (heads is None or hidden is None) and "head_dim" not in values
    head_size = None if unknown_size else whole("head_dim", (hidden or 0) // (heads or 1))
    sizes["rms_norm_eps"] = problems.attempt(number, values, "rms_norm_eps")
    whole("max_position_embeddings", most=MOST_POSITIONS)
    if heads and kv_heads and heads % kv_heads:
        problems.lines.append(f"num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}")
    if head_size and head_size % 2:
        problems.lines.append(f"head_dim {head_size} is odd; rotary embeddings need pairs")
    if heads and head_size and heads * head_size > LARGEST_SIZE:
        problems.lines.append(f"{heads} heads of head_dim {head_size} are wider together than {LARGEST_SIZE}")
    return sizes


def _window(values: Mapping[str, Any], architecture: str) -> int | None:
    """`sliding_window`, of which null and a missing key are not the same: transformers' Mistral then has 4096."""
    window = values.get("sliding_window")
    if architecture == LLAMA:
        if window is not None:
            raise InputError(f"sliding_window {short_repr(window)} in a Llama; only Mistral has one")
        return None
    if "sliding_window" not in values:
        raise InputError(
            "sliding_window is missing; a Mistral says null or a number of keys (transformers would assume 4096)"
        )
    if window is not None and values.get("use_sliding_window") is False:
        raise InputError(f"sliding_window {short_repr(window)} contradicts use_sliding_window false; expected null")
    return None if window is None else positive(values, "sliding_window", most=MOST_POSITIONS)


def _ropes(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """`rope_parameters` (transformers 5) and `rope_scaling` (4)."""
    new, old = (value_of(values, key, dict | None) or {} for key in ("rope_parameters", "rope_scaling"))
    return config_keys.without_nulls(new), config_keys.without_nulls(old)


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
    low, high = number(scaling, "low_freq_factor", above=True), number(scaling, "high_freq_factor", above=True)
    if low >= high:
        raise InputError(
            f"low_freq_factor {low} is not below high_freq_factor {high}; the frequencies between them are interpolated"
        )
    original = positive(scaling, ORIGINAL, most=MOST_POSITIONS)
    if values.get(ORIGINAL, original) != original:
        raise InputError(
            f"{ORIGINAL} is {short_repr(values[ORIGINAL])} at the top and {original} in the scaling; expected one value"
        )
    return Rope(0, "llama3", number(scaling, "factor", above=True), low, high, original)


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
