"""LoRA <-> PEFT's LORA: the numbers are the same, with heads folded into one dimension on disk."""

import math
import re

import numpy as np

from jaxprefix.errors import InputError
from jaxprefix.io.messages import short_repr, truncate
from jaxprefix.io.values import number
from jaxprefix.models.adapters import LoRA
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.hooks import Params
from jaxprefix.models.parameters import BY_NAME, PROJECTIONS, input_dims
from jaxprefix.peft.modules import Module, check_selected, ranks_and_scales
from jaxprefix.peft.settings import Settings, Tensors, check, common, take

NAME = re.compile(r"base_model\.model\.model\.layers\.(\d+)\.(?:self_attn|mlp)\.(\w+)\.lora_[AB]\.weight")
READ = (
    "r lora_alpha lora_dropout use_rslora rank_pattern alpha_pattern target_modules exclude_modules "
    "layers_to_transform layers_pattern init_lora_weights bias"
).split()
# How A and B were initialized, and settings of other modules, do not change a trained adapter.
INERT = (
    "megatron_core qalora_group_size runtime_config loftq_config eva_config corda_config "
    "lora_ga_config ensure_weight_tying"
).split()
MERGE = "merge them with PEFT (merge_and_unload, then save_pretrained) and use the result as --model"
REFUSED = {
    "use_dora": "DoRA also scales the base's weights; only plain LoRA is supported",
    "lora_bias": "only LoRA without biases is supported",
    "modules_to_save": f"whole modules were trained beside LoRA; {MERGE}",
    "layer_replication": "layers of the base were replicated; this base has no replicated layers",
    "fan_in_fan_out": "the weights of a Llama or Mistral are not stored as [in, out]",
}
# Which biases of the base were trained. The base has none, so no value changes a number; a bias in the file is refused.
BIASES = (None, "none", "all", "lora_only")
DEFAULT_TARGETS = ("q_proj", "v_proj")  # PEFT's for Llama and Mistral
INITS = (True, False, None, "gaussian", "eva", "orthogonal")  # these leave the base unchanged


def to_peft(adapter: LoRA, params: Params, config: DecoderConfig) -> tuple[Settings, Tensors]:
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
            first, second = _names(Module(name, layer))
            tensors[first] = np.ascontiguousarray(a[layer].reshape(adapter.rank, -1))
            tensors[second] = np.ascontiguousarray(b[layer].reshape(-1, adapter.rank))
    return settings, tensors


def from_peft(settings: Settings, tensors: Tensors, config: DecoderConfig) -> tuple[LoRA, Params]:
    """The inverse of `to_peft`, for one rank and one scale in all layers.

    Smaller ranks and modules without LoRA are padded with zeros up to the largest rank. If the modules have different
    scales, each is folded into its B, in float64, and the common scale is 1. `use_rslora` (alpha/√r) becomes an alpha
    of alpha·√r.

    Raises:
        InputError: if this package cannot represent the adapter.
    """
    check(settings, READ, INERT, REFUSED)
    _check_values(settings)
    modules = ranks_and_scales(settings, _modules(settings, tensors, config))
    dims = _dims(config)
    shapes = {}
    for module, (rank, _) in modules.items():
        outputs, inputs = dims[module.projection]
        first, second = _names(module)
        shapes |= {first: (rank, math.prod(inputs)), second: (math.prod(outputs), rank)}
    take(tensors, shapes)
    targets = [name for name in PROJECTIONS if any(module.projection == name for module in modules)]
    largest, scale = max(rank for rank, _ in modules.values()), _common_scale(modules)
    adapter = LoRA(
        largest,
        scale * largest,
        ",".join(name.removesuffix("_proj") for name in targets),
        number({"lora_dropout": 0} | settings, "lora_dropout"),
    )
    params = {}
    for name in targets:
        outputs, inputs = dims[name]
        a = np.zeros((config.layers, largest, math.prod(inputs)), np.float32)
        b = np.zeros((config.layers, math.prod(outputs), largest), np.float32)
        for module, (rank, factor) in modules.items():
            if module.projection == name:
                first, second = (tensors[tensor] for tensor in _names(module))
                a[module.layer, :rank] = first
                b[module.layer, :, :rank] = second if factor == scale else factor * second.astype(np.float64)
        params[name] = {
            "a": a.reshape(config.layers, largest, *inputs),
            "b": b.reshape(config.layers, *outputs, largest),
        }
    return adapter, params


def import_note(settings: Settings, tensors: Tensors, config: DecoderConfig) -> str:
    """A sentence about what the import rewrote to have one rank and one scale; "" if nothing."""
    modules = ranks_and_scales(settings, _modules(settings, tensors, config))
    largest = max(rank for rank, _ in modules.values())
    smaller = sum(rank < largest for rank, _ in modules.values())
    without = len({name for name, _ in modules}) * config.layers - len(modules)
    parts = []
    if smaller:
        parts.append(f"{smaller} modules of a smaller rank were padded with zeros to rank {largest}")
    if without:
        parts.append(f"{without} modules without LoRA were filled with zeros")
    if len({scale for _, scale in modules.values()}) > 1:
        parts.append("the scales, which differ, were folded into B")
    return f"{'; '.join(parts)}: the same function as PEFT's" if parts else ""


def export_note(params: Params) -> str:
    """A sentence about modules whose rank is smaller than the one that is written; "" if there are none."""
    ranks = np.concatenate([_used_ranks(part["a"], part["b"]) for part in params.values()])
    largest = next(iter(params.values()))["a"].shape[1]
    if not (count := int((ranks < largest).sum())):
        return ""
    return f"every module has rank {largest}; {count} of {len(ranks)} are padded with zeros"


def _used_ranks(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """For each layer, the rank that is left without components that are zero in A and in B, [L]."""
    layers, rank = a.shape[:2]
    used = np.asarray(a).reshape(layers, rank, -1).any(axis=2) | np.asarray(b).reshape(layers, -1, rank).any(axis=1)
    return used.sum(axis=1)


def _check_values(settings: Settings) -> None:
    if settings.get("bias") not in BIASES:
        raise InputError(f"bias is {short_repr(settings['bias'])}; expected none, all or lora_only")
    init = settings.get("init_lora_weights", True)
    if init not in INITS:
        raise InputError(
            f"init_lora_weights is {short_repr(init)}: it changed the base's weights; convert the adapter to plain "
            "LoRA (PEFT's path_initial_model_for_weight_conversion) first"
        )


def _dims(config: DecoderConfig) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """The output and the input dimensions of each projection."""
    result = {}
    for name in PROJECTIONS:
        dims = BY_NAME[name].shape(config)
        cut = len(dims) - input_dims(name)
        result[name] = dims[:cut], dims[cut:]
    return result


def _common_scale(modules: dict[Module, tuple[int, float]]) -> float:
    scales = {scale for _, scale in modules.values()}
    return scales.pop() if len(scales) == 1 else 1.0


def _names(module: Module) -> tuple[str, str]:
    return f"base_model.model.{module.path}.lora_A.weight", f"base_model.model.{module.path}.lora_B.weight"


def _modules(settings: Settings, tensors: Tensors, config: DecoderConfig) -> list[Module]:
    """The modules that PEFT adapts; InputError if the file has tensors of other projections."""
    matches = {name: NAME.fullmatch(name) for name in tensors}
    adapted = {match[2] for match in matches.values() if match} & set(PROJECTIONS)
    if not adapted:
        raise InputError(f"none of the {len(tensors)} tensors is a LoRA matrix of a projection of Llama or Mistral")
    if others := sorted(name for name, match in matches.items() if not match):
        raise InputError(
            f"tensor {truncate(others[0])} is unknown ({len(others)} in all): only LoRA matrices of the projections "
            f"can be imported; if PEFT loads the others, {MERGE}"
        )
    return check_selected(settings, adapted, config.layers, DEFAULT_TARGETS)
