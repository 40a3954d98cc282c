"""LoRA <-> PEFT's LORA: the numbers are the same, with heads folded into one dimension on disk."""

import math
import re

import numpy as np

from jaxprefix.errors import InputError
from jaxprefix.io.messages import short_repr
from jaxprefix.io.values import LARGEST_NUMBER, number
from jaxprefix.models import decoder
from jaxprefix.models.adapters import LoRA
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.hooks import PROJECTIONS, Params, input_dims
from jaxprefix.models.weights import MODULES
from jaxprefix.peft.modules import check_selected
from jaxprefix.peft.settings import Settings, Tensors, check, common, take, whole

NAME = re.compile(r"base_model\.model\.model\.layers\.(\d+)\.(?:self_attn|mlp)\.(\w+)\.lora_[AB]\.weight")
READ = "r lora_alpha lora_dropout use_rslora target_modules exclude_modules init_lora_weights bias".split()
# How A and B were initialized, and settings of other modules, do not change a trained adapter.
INERT = (
    "megatron_core qalora_group_size runtime_config loftq_config eva_config corda_config "
    "lora_ga_config ensure_weight_tying layers_pattern"
).split()
REFUSED = {
    "use_dora": "DoRA also scales the base's weights; only plain LoRA is supported",
    "lora_bias": "only LoRA without biases is supported",
    "modules_to_save": "whole modules were trained beside LoRA; only the low-rank matrices are supported",
    "rank_pattern": "this package needs one rank for all layers and targets",
    "alpha_pattern": "this package needs one alpha for all layers and targets",
    "layers_to_transform": "this package needs every target in every layer",
    "layer_replication": "layers of the base were replicated; this base has no replicated layers",
    "fan_in_fan_out": "the weights of a Llama or Mistral are not stored as [in, out]",
}
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
            first, second = _names(layer, name)
            tensors[first] = np.ascontiguousarray(a[layer].reshape(adapter.rank, -1))
            tensors[second] = np.ascontiguousarray(b[layer].reshape(-1, adapter.rank))
    return settings, tensors


def from_peft(settings: Settings, tensors: Tensors, config: DecoderConfig) -> tuple[LoRA, Params]:
    """The inverse of `to_peft`; `use_rslora` (alpha/√r) becomes an alpha of alpha·√r.

    Raises:
        InputError: if this package cannot represent the adapter.
    """
    check(settings, READ, INERT, REFUSED)
    if settings.get("bias", "none") not in ("none", None):
        raise InputError(
            f"bias is {short_repr(settings['bias'])}: projections have no biases in this package; expected 'none'"
        )
    init = settings.get("init_lora_weights", True)
    if init not in INITS:
        raise InputError(
            f"init_lora_weights is {short_repr(init)}: it changed the base's weights; convert the adapter to plain "
            "LoRA (PEFT's path_initial_model_for_weight_conversion) first"
        )
    values = {"lora_alpha": 8, "lora_dropout": 0} | settings
    rank, alpha = whole(settings, "r"), number(values, "lora_alpha", least=-LARGEST_NUMBER)
    targets = _targets(settings, tensors)
    adapter = LoRA(
        rank,
        alpha * math.sqrt(rank) if settings.get("use_rslora") else alpha,
        ",".join(name.removesuffix("_proj") for name in targets),
        number(values, "lora_dropout"),
    )
    weight_shapes, shapes = decoder.shapes(config)["layers"], {}
    for name in targets:
        dims = weight_shapes[name].shape[1:]
        cut = len(dims) - input_dims(name)
        for layer in range(config.layers):
            first, second = _names(layer, name)
            shapes |= {first: (rank, math.prod(dims[cut:])), second: (math.prod(dims[:cut]), rank)}
    take(tensors, shapes)
    params = {}
    for name in targets:
        dims = weight_shapes[name].shape[1:]
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
    """The projections that have tensors; InputError if PEFT reads other ones from the settings."""
    matches = [NAME.fullmatch(name) for name in tensors]
    adapted = {match[2] for match in matches if match}
    targets = [name for name in PROJECTIONS if name in adapted]
    if not targets:
        raise InputError(f"none of the {len(tensors)} tensors is a LoRA matrix of a projection of Llama or Mistral")
    check_selected(settings, targets, ["q_proj", "v_proj"])
    return targets
