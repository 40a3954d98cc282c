"""The families of decoders: what each one differs in from Llama. One row each, as transformers' class reads it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import Any

from jaxprefix.errors import InputError
from jaxprefix.io.messages import short_repr
from jaxprefix.io.values import flag, number, positive, value_of
from jaxprefix.models.config_keys import MOST_POSITIONS, SILU, Problems, Values, without_nulls
from jaxprefix.models.config_rope import Rope, read_rope

FULL, SLIDING = "full_attention", "sliding_attention"


@dataclass(frozen=True)
class LayerKind:
    """What the layers of one model can differ in: rotation (None: keys have no position) and window."""

    rope: Rope | None
    window: int | None


@dataclass(frozen=True)
class Family:
    """How a config.json of this family is read. All else is Llama's."""

    model_type: str
    # (values, rope, number of layers) -> the kind of each layer
    kinds: Callable[[Values, Rope, int], Sequence[LayerKind]]
    differences: Callable[[Values], dict[str, Any]] = lambda values: {}  # fields of DecoderConfig
    activation: tuple[str, Sequence[str]] = ("hidden_act", SILU)  # its key and the values that are built
    read: Sequence[str] = ()  # keys that the class reads and Llama's does not
    defaults: Mapping[str, Any] = field(default_factory=dict)  # the class's, where published files leave keys out
    optional_kv_heads: bool = False  # whether a missing num_key_value_heads means all heads
    simplify: Callable[[Values], Values] = lambda values: values  # to one place for the rope of full attention


def _llama(values: Values, rope: Rope, layers: int) -> Sequence[LayerKind]:
    if (window := values.get("sliding_window")) is not None:
        raise InputError(f"sliding_window {short_repr(window)} in a Llama; only Mistral has one")
    return _all_alike(values, rope, None, layers)


def _mistral(values: Values, rope: Rope, layers: int) -> Sequence[LayerKind]:
    """`sliding_window`, of which null and a missing key are not the same: transformers' Mistral then has 4096."""
    if "sliding_window" not in values:
        raise InputError(
            "sliding_window is missing; a Mistral says null or a number of keys (transformers would assume 4096)"
        )
    window = values["sliding_window"]
    if window is not None and values.get("use_sliding_window") is False:
        raise InputError(f"sliding_window {short_repr(window)} contradicts use_sliding_window false; expected null")
    return _all_alike(values, rope, _window(values) if window is not None else None, layers)


def _all_alike(values: Values, rope: Rope, window: int | None, layers: int) -> Sequence[LayerKind]:
    """transformers' Llama and Mistral read the window only. Other programs read the list, so the two must agree."""
    kind, listed = FULL if window is None else SLIDING, values.get("layer_types")
    whole = isinstance(listed, list) and all(isinstance(each, str) for each in listed)
    found = sorted(set(listed or [])) if whole else listed
    if listed is not None and found != [kind]:
        raise InputError(
            f"layer_types has {short_repr(found)} with sliding_window {short_repr(values.get('sliding_window'))}; "
            f"expected {kind!r} for all layers"
        )
    return [LayerKind(rope, window)] * layers


def _qwen(values: Values, rope: Rope, layers: int) -> Sequence[LayerKind]:
    """The window is used with `use_sliding_window`, from layer `max_window_layers` on."""
    window, first = _used_window(values), value_of({"max_window_layers": 28} | dict(values), "max_window_layers", int)
    types = _layer_types(values, [SLIDING if window and layer >= first else FULL for layer in range(layers)])
    return [LayerKind(rope, window if kind == SLIDING else None) for kind in types]


def _smollm3(values: Values, rope: Rope, layers: int) -> Sequence[LayerKind]:
    """Layers without rotation are listed as 0, or are every `no_rope_layer_interval`-th."""
    interval = positive(values, "no_rope_layer_interval", 4)
    rotated = values.get("no_rope_layers", [int((layer + 1) % interval != 0) for layer in range(layers)])
    if not isinstance(rotated, list) or len(rotated) != layers or not set(map(str, rotated)) <= {"0", "1"}:
        raise InputError(f"no_rope_layers is {short_repr(rotated)}; expected 0 or 1 for each of {layers} layers")
    window = _used_window(values)
    types = _layer_types(values, [FULL if each or not window else SLIDING for each in rotated])
    return [
        LayerKind(rope if each else None, window if kind == SLIDING else None)
        for each, kind in zip(rotated, types, strict=True)
    ]


def _gemma3(values: Values, rope: Rope, layers: int) -> Sequence[LayerKind]:
    """Five layers with a window and their own rotation, then one without a window."""
    pattern, problems = positive(values, "sliding_window_pattern", 6), Problems()
    local_rope = read_rope({"rope_parameters": values["local_rope"]}, "Gemma3ForCausalLM", problems)
    problems.check()
    types = _layer_types(values, [SLIDING if (layer + 1) % pattern else FULL for layer in range(layers)])
    return [LayerKind(local_rope, _window(values)) if kind == SLIDING else LayerKind(rope, None) for kind in types]


def _gemma3_differences(values: Values) -> dict[str, Any]:
    for key in ("attn_logit_softcapping", "final_logit_softcapping"):
        if values.get(key) is not None:
            raise InputError(f"{key} {short_repr(values[key])} is not supported; expected null")
    if flag(values, "use_bidirectional_attention"):
        raise InputError("use_bidirectional_attention is true; only causal attention is supported")
    return {
        "head_norms": True,
        "post_norms": True,
        "norm_offset": 1.0,
        "activation": "gelu_tanh",
        "embedding_scale": sqrt(positive(values, "hidden_size")),
        "query_scale": sqrt(positive(values, "head_dim") / number(values, "query_pre_attn_scalar", above=True)),
    }


def _gemma3_simplified(values: Values) -> Values:
    """The values with the rope of full attention where a Llama has its own, and that of the others as `local_rope`."""
    values = GEMMA3 | without_nulls(values)
    parameters = value_of(values, "rope_parameters", dict | None) or {}
    local = {"rope_theta": values.get("rope_local_base_freq", 10_000.0)}
    if not {FULL, SLIDING} & set(parameters):
        return {"rope_theta": 1e6, **values, "local_rope": local}
    whole, sliding = (value_of(parameters, kind, dict | None, "rope_parameters: ") or {} for kind in (FULL, SLIDING))
    return {**values, "rope_parameters": {"rope_theta": 1e6} | whole, "local_rope": local | sliding}


def _used_window(values: Values) -> int | None:
    return _window(values) if flag(values, "use_sliding_window") and values.get("sliding_window") else None


def _window(values: Values) -> int:
    return positive(values, "sliding_window", most=MOST_POSITIONS)


def _layer_types(values: Values, default: list[str]) -> list[str]:
    types = values.get("layer_types") or default
    if not isinstance(types, list) or len(types) != len(default) or not all(each in (FULL, SLIDING) for each in types):
        raise InputError(
            f"layer_types is {short_repr(types)}; expected {FULL} or {SLIDING} for each of {len(default)} layers"
        )
    return types


GEMMA3 = {
    "vocab_size": 262_208,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
}
QWEN = "use_sliding_window max_window_layers".split()
FAMILIES = {
    "LlamaForCausalLM": Family("llama", _llama, optional_kv_heads=True),
    "MistralForCausalLM": Family("mistral", _mistral),
    "Qwen2ForCausalLM": Family("qwen2", _qwen, lambda _: {"qkv_biases": True}, read=QWEN),
    "Qwen3ForCausalLM": Family("qwen3", _qwen, lambda _: {"head_norms": True}, read=QWEN, defaults={"head_dim": 128}),
    "SmolLM3ForCausalLM": Family(
        "smollm3",
        _smollm3,
        read=["no_rope_layers", "no_rope_layer_interval", "use_sliding_window"],
        defaults={"tie_word_embeddings": True},
    ),
    "Gemma3ForCausalLM": Family(
        "gemma3_text",
        _gemma3,
        _gemma3_differences,
        ("hidden_activation", ("gelu_pytorch_tanh",)),
        (
            "hidden_activation rope_local_base_freq sliding_window_pattern query_pre_attn_scalar "
            "attn_logit_softcapping final_logit_softcapping use_bidirectional_attention"
        ).split(),
        simplify=_gemma3_simplified,
    ),
}
# Architectures with a text model inside, whose settings are in `text_config`
NESTED = {"Gemma3ForConditionalGeneration": "Gemma3ForCausalLM"}


def text_values(values: Values) -> Values:
    """The object of a text model's config.json, from that of a model that holds one."""
    named = values.get("architectures")
    if not (isinstance(named, list) and len(named) == 1 and named[0] in tuple(NESTED)):
        return values
    inner = dict(value_of(values, "text_config", dict))
    for key in ("tie_word_embeddings", "quantization_config"):
        if key in values:
            inner.setdefault(key, values[key])
    return inner | {"architectures": [NESTED[named[0]]]}


def architecture_of(values: Values) -> str:
    """The one supported architecture that the file names, or InputError."""
    named = values.get("architectures")
    if not isinstance(named, list) or len(named) != 1 or named[0] not in tuple(FAMILIES):
        *most, last = FAMILIES
        raise InputError(f"architecture {short_repr(named)} is not supported; expected {', '.join(most)} or {last}")
    kind, expected = values.get("model_type"), FAMILIES[named[0]].model_type
    if kind not in (None, expected):
        raise InputError(
            f"model_type {short_repr(kind)} contradicts the architecture {named[0]}; expected {expected!r}"
        )
    return named[0]
