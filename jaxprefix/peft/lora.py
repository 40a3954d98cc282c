"""LoRA <-> PEFT's LORA: the same numbers, heads folded into one dimension on disk."""

import math
import re
from typing import Any

import numpy as np
import regex

from jaxprefix.errors import InputError
from jaxprefix.io.messages import one_line, short_repr
from jaxprefix.io.values import LARGEST_NUMBER, number
from jaxprefix.models import decoder
from jaxprefix.models.adapters import LoRA
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.hooks import PROJECTIONS, input_dims
from jaxprefix.models.weights import MODULES
from jaxprefix.peft.settings import Settings, Tensors, check, common, take, whole

NAME = re.compile(r"base_model\.model\.model\.layers\.(\d+)\.(?:self_attn|mlp)\.(\w+)\.lora_[AB]\.weight")
READ = "r lora_alpha lora_dropout use_rslora target_modules exclude_modules init_lora_weights bias".split()
# How A and B began, and what acts on other things than the adapted projections, is over once they are trained.
INERT = (
    "megatron_core qalora_group_size runtime_config loftq_config eva_config corda_config "
    "lora_ga_config ensure_weight_tying layers_pattern"
).split()
REFUSED = {
    "use_dora": "DoRA scales the base's weights too; only plain LoRA can be held",
    "lora_bias": "the term's bias cannot be held; only plain LoRA can",
    "modules_to_save": "whole modules were trained beside LoRA; only LoRA's own terms can be held",
    "rank_pattern": "all layers and targets need one rank here",
    "alpha_pattern": "all layers and targets need one alpha here",
    "layers_to_transform": "every layer needs every target here",
    "layer_replication": "the base's layers were replicated; this base has its own",
    "fan_in_fan_out": "the weights of a Llama or Mistral are not stored as [in, out]",
}
LONGEST_PATTERN, MOST_REPETITIONS, SECONDS = (
    2000,
    10_000,
    1.0,
)  # those of PEFT's examples have 100 characters and take microseconds
STARTS = (True, False, None, "gaussian", "eva", "orthogonal")  # those that leave the base as it is


def to_peft(adapter: LoRA, params: Any, config: DecoderConfig) -> tuple[Settings, Tensors]:
    """Params `{"q_proj": {"a": [L, R, in...], "b": [L, out..., R]}, ...}` as `lora_A` [R, in] and `lora_B` [out, R]."""
    settings = common("LORA") | {
        "r": adapter.rank,
        "lora_alpha": int(adapter.alpha) if float(adapter.alpha).is_integer() else adapter.alpha,
        "lora_dropout": adapter.dropout,
        "target_modules": adapter.projections,
        "bias": "none",
    }
    tensors = {}
    for name in adapter.projections:
        a, b = (np.asarray(params[name][part], np.float32) for part in ("a", "b"))
        for layer in range(config.layers):
            first, second = _names(layer, name)
            tensors[first] = np.ascontiguousarray(a[layer].reshape(adapter.rank, -1))
            tensors[second] = np.ascontiguousarray(b[layer].reshape(-1, adapter.rank))
    return settings, tensors


def from_peft(settings: Settings, tensors: Tensors, config: DecoderConfig) -> tuple[LoRA, Any]:
    """The inverse; `use_rslora` (alpha/√r) becomes an alpha of alpha·√r. InputError names what cannot be held."""
    check(settings, READ, INERT, REFUSED)
    if settings.get("bias", "none") not in ("none", None):
        raise InputError(
            f"bias is {short_repr(settings['bias'])}: this package's projections have no biases; expected 'none'"
        )
    start = settings.get("init_lora_weights", True)
    if start not in STARTS:
        raise InputError(
            f"init_lora_weights is {short_repr(start)}: it changed the base's weights; convert the adapter to plain "
            "LoRA (PEFT's path_initial_model_for_weight_conversion) first"
        )
    given = {"lora_alpha": 8, "lora_dropout": 0} | settings
    rank, alpha = whole(settings, "r"), number(given, "lora_alpha", least=-LARGEST_NUMBER)
    targets = _targets(settings, tensors)
    adapter = LoRA(
        rank,
        alpha * math.sqrt(rank) if settings.get("use_rslora") else alpha,
        ",".join(name.removesuffix("_proj") for name in targets),
        number(given, "lora_dropout"),
    )
    sizes, shapes = decoder.shapes(config)["layers"], {}
    for name in targets:
        dims = sizes[name].shape[1:]
        cut = len(dims) - input_dims(name)
        for layer in range(config.layers):
            first, second = _names(layer, name)
            shapes |= {first: (rank, math.prod(dims[cut:])), second: (math.prod(dims[:cut]), rank)}
    take(tensors, shapes)
    params = {}
    for name in targets:
        dims = sizes[name].shape[1:]
        cut = len(dims) - input_dims(name)
        a, b = (np.stack([tensors[_names(layer, name)[part]] for layer in range(config.layers)]) for part in (0, 1))
        params[name] = {
            "a": a.reshape(config.layers, rank, *dims[cut:]),
            "b": b.reshape(config.layers, *dims[:cut], rank),
        }
    return adapter, params


def _names(layer: int, projection: str) -> tuple[str, str]:
    module = f"base_model.model.model.layers.{layer}.{MODULES[projection]}{projection}"
    return f"{module}.lora_A.weight", f"{module}.lora_B.weight"


def _targets(settings: Settings, tensors: Tensors) -> list[str]:
    """The projections that have tensors: those, and no others, that the settings mean to PEFT."""
    matches = [NAME.fullmatch(name) for name in tensors]
    found = {match[2] for match in matches if match}
    targets = [name for name in PROJECTIONS if name in found]
    if not targets:
        raise InputError(f"no LoRA tensor of a projection of a Llama or Mistral among {len(tensors)} tensors")
    asked = _meant(settings, "target_modules", ["q_proj", "v_proj"]) - _meant(settings, "exclude_modules", [])
    if asked != set(targets):
        raise InputError(
            f"target_modules {short_repr(settings.get('target_modules'))} means "
            f"{', '.join(sorted(asked)) or 'no projection'}, the file has {', '.join(targets)}; is it whole, its own?"
        )
    return targets


def _meant(settings: Settings, key: str, default: list[str]) -> set[str]:
    """The projections that PEFT takes `target_modules` for: names or ends of names, a pattern, or all."""
    given = settings.get(key) or default
    if given == "all-linear":
        return set(PROJECTIONS)
    if isinstance(given, str):
        modules = {name: f"model.layers.0.{MODULES[name]}{name}" for name in PROJECTIONS}
        return {name for name, module in modules.items() if _matches(given, module, key)}
    if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
        raise InputError(f"{key} is {short_repr(given)}; expected names of modules, or a pattern")
    return {name.rpartition(".")[2] for name in given} & set(PROJECTIONS)


def _matches(pattern: str, module: str, key: str) -> bool:
    """PEFT asks Python's `re`, which some patterns keep busy for ever; this one knows the same ones and stops."""
    if len(pattern) > LONGEST_PATTERN:
        raise InputError(f"{key} is a pattern of {len(pattern)} characters; expected at most {LONGEST_PATTERN}")
    # It writes "a{99}" out, and the time stops only the matching.
    if math.prod(max(int(count), 1) for count in re.findall(r"[{,]\s*(\d+)", pattern)) > MOST_REPETITIONS:
        raise InputError(f"{key} is {short_repr(pattern)}, a pattern of more than {MOST_REPETITIONS} repetitions")
    try:
        return regex.fullmatch(pattern, module, timeout=SECONDS) is not None
    except (regex.error, TimeoutError, OverflowError, RecursionError, MemoryError) as error:
        raise InputError(
            f"{key} is {short_repr(pattern)}, a pattern that cannot be matched: {one_line(error)}"
        ) from None
