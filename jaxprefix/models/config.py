"""DecoderConfig: the config.json of a Llama or Mistral decoder in Hugging Face format, read strictly.

Every key is used, known not to change a number, or refused by name. A port that skips keys in silence ends with a wrong
rotary base or without its sliding window.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxprefix.errors import InputError
from jaxprefix.io.messages import short_repr
from jaxprefix.io.strict_json import read_object
from jaxprefix.io.values import LARGEST_SIZE, flag, number, positive, value_of

ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM")

# Keys that change no logit without dropout (the tokenizer handles the token ids).
INERT = frozenset(
    "architectures model_type transformers_version torch_dtype dtype use_cache initializer_range pretraining_tp "
    "attention_dropout bos_token_id eos_token_id pad_token_id _name_or_path name_or_path is_decoder is_encoder_decoder "
    "add_cross_attention return_dict output_attentions output_hidden_states chunk_size_feed_forward id2label label2id "
    "problem_type rope_interleaved _attn_implementation_autoset unsloth_version unsloth_fixed".split()
)
READ = frozenset(
    "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim "
    "hidden_act max_position_embeddings rms_norm_eps rope_theta rope_scaling rope_parameters attention_bias mlp_bias "
    "tie_word_embeddings sliding_window layer_types".split()
)
MOST_LAYERS, MOST_POSITIONS = 10_000, 2**31 - 1
SCALING_KEYS = {  # by the kind of Rope
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
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
        """The configuration in `directory/config.json`. An InputError names the file and the key."""
        path = directory / "config.json"
        if not path.is_file():
            raise InputError(f"no config.json in {directory}; give a directory in Hugging Face layout")
        values = read_object(path)
        try:
            return cls.parse(values)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> "DecoderConfig":
        """The configuration from the object of a config.json."""
        architecture = _architecture(values)
        _refuse(values)
        heads, hidden = positive(values, "num_attention_heads"), positive(values, "hidden_size")
        # transformers' default depends on the family (Llama: all heads, Mistral: 8); only Llama's is safe.
        kv_heads = heads if architecture == "LlamaForCausalLM" else None
        config = cls(
            vocabulary_size=positive(values, "vocab_size"),
            hidden_size=hidden,
            intermediate_size=positive(values, "intermediate_size"),
            layers=positive(values, "num_hidden_layers", most=MOST_LAYERS),
            heads=heads,
            kv_heads=positive(values, "num_key_value_heads", kv_heads),
            head_size=positive(values, "head_dim", hidden // heads),
            norm_epsilon=number(values, "rms_norm_eps"),
            rope=_rope(values),
            max_positions=positive(values, "max_position_embeddings", most=MOST_POSITIONS),
            tied=flag(values, "tie_word_embeddings"),
            window=_window(values, architecture),
        )
        if config.heads % config.kv_heads:
            raise InputError(f"num_attention_heads {heads} is not a multiple of num_key_value_heads {config.kv_heads}")
        if config.head_size % 2:
            raise InputError(f"head_dim {config.head_size} is odd; rotary embeddings need pairs")
        if heads * config.head_size > LARGEST_SIZE:
            raise InputError(f"{heads} heads of head_dim {config.head_size} are wider together than {LARGEST_SIZE}")
        return config


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


def _architecture(values: Mapping[str, Any]) -> str:
    named = values.get("architectures")
    if isinstance(named, list) and len(named) == 1 and named[0] in ARCHITECTURES:
        return named[0]
    wanted = " or ".join(ARCHITECTURES)
    raise InputError(f"architecture {short_repr(named)} is not supported; expected {wanted}")


def _refuse(values: Mapping[str, Any]) -> None:
    """Refuses what could change a number and is not supported."""
    unknown = sorted(set(values) - READ - INERT)
    if unknown:
        raise InputError(
            f"unknown key {short_repr(unknown[0])} (value {short_repr(values[unknown[0]])}); "
            "it could change the numbers: not skipped"
        )
    if values.get("hidden_act") != "silu":
        raise InputError(f"hidden_act {short_repr(values.get('hidden_act'))} is not supported; expected 'silu'")
    for bias in ("attention_bias", "mlp_bias"):
        if flag(values, bias):
            raise InputError(f"{bias} is true; models with biases are not supported")
    _refuse_layer_types(values)


def _refuse_layer_types(values: Mapping[str, Any]) -> None:
    layer_types = values.get("layer_types")
    # transformers' Llama and Mistral read the window only. Other programs read the list, so the two must agree.
    kind = "full_attention" if values.get("sliding_window") is None else "sliding_attention"
    if layer_types is None:
        return
    whole = isinstance(layer_types, list) and all(isinstance(each, str) for each in layer_types)
    found = sorted(set(layer_types)) if whole else layer_types
    if found != [kind]:
        raise InputError(
            f"layer_types has {short_repr(found)} with sliding_window {short_repr(values.get('sliding_window'))}; "
            f"expected {kind!r} for all layers"
        )


def _window(values: Mapping[str, Any], architecture: str) -> int | None:
    if architecture == "LlamaForCausalLM":
        if values.get("sliding_window") is not None:
            raise InputError(f"sliding_window {short_repr(values['sliding_window'])} in a Llama; only Mistral has one")
        return None
    if "sliding_window" not in values:
        raise InputError(
            "sliding_window is missing; a Mistral says null or a number of keys (transformers would assume 4096)"
        )
    return None if values["sliding_window"] is None else positive(values, "sliding_window", most=MOST_POSITIONS)


def _rope(values: Mapping[str, Any]) -> Rope:
    """From `rope_theta` and `rope_scaling` (transformers 4) or `rope_parameters` (5), which must agree."""
    new, old = (dict(value_of(values, key, dict | None) or {}) for key in ("rope_parameters", "rope_scaling"))
    theta = _theta([place["rope_theta"] for place in (values, new, old) if place.get("rope_theta") is not None])
    for place in (new, old):
        place.pop("rope_theta", None)
    if new and old and new != old:
        raise InputError(
            f"rope_scaling and rope_parameters contradict each other: {short_repr(old)} and {short_repr(new)}"
        )
    scaling = new or old
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind not in tuple(SCALING_KEYS):
        raise InputError(f"rope_type {short_repr(kind)} is not supported; expected {', '.join(SCALING_KEYS)}")
    if scaling.get("type", kind) != kind:
        raise InputError(
            f"rope_type {kind!r} and type {short_repr(scaling['type'])} contradict each other; expected one"
        )
    if unknown := sorted(set(scaling) - {"rope_type", "type", *SCALING_KEYS[kind]}):
        raise InputError(
            f"unknown key {short_repr(unknown[0])} of the rope_type {kind!r}; it could change the numbers: not skipped"
        )
    if kind == "default":
        return Rope(theta)
    if kind == "linear":
        return Rope(theta, "linear", factor=number(scaling, "factor", above=True))
    low, high = number(scaling, "low_freq_factor", above=True), number(scaling, "high_freq_factor", above=True)
    if low >= high:
        raise InputError(
            f"low_freq_factor {low} is not below high_freq_factor {high}; the frequencies between them are interpolated"
        )
    return Rope(
        theta,
        "llama3",
        factor=number(scaling, "factor", above=True),
        low_frequency_factor=low,
        high_frequency_factor=high,
        original_positions=positive(scaling, "original_max_position_embeddings", most=MOST_POSITIONS),
    )


def _theta(given: list[Any]) -> float:
    """The value of `rope_theta`, which must be the same wherever it is given."""
    if not given:
        raise InputError(
            "rope_theta is neither at the top nor in rope_parameters; without it every position would be wrong"
        )
    if any(value != given[0] for value in given):
        raise InputError(
            f"rope_theta is {short_repr(given[0])} at the top and {short_repr(given[-1])} in rope_parameters; "
            "expected one value"
        )
    return number({"rope_theta": given[0]}, "rope_theta", above=True)
