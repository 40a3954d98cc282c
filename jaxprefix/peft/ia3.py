"""IA3 <-> PEFT's IA3, which writes factors on the input of down_proj where ours are on the output of up_proj."""

import math
import re
from collections.abc import Sequence

import numpy as np

from jaxprefix.errors import InputError
from jaxprefix.models.adapters import IA3
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.hooks import Params
from jaxprefix.models.parameters import BY_NAME, PROJECTIONS, input_dims, module_path
from jaxprefix.peft.modules import Module, by_name_or_pattern, check_selected
from jaxprefix.peft.settings import Settings, Tensors, check, common, take

NAME = re.compile(r"base_model\.model\.model\.layers\.(\d+)\.(?:self_attn|mlp)\.(\w+)\.ia3_l")
READ = "target_modules exclude_modules feedforward_modules".split()
INERT = ("init_ia3_weights",)  # how the factors were initialized
REFUSED = {
    "modules_to_save": "whole modules were trained beside the factors; only the factors are supported",
    "fan_in_fan_out": "the weights of a Llama or Mistral are not stored as [in, out]",
}
FEED_FORWARD = "down_proj"
# The modules that PEFT adapts: with Llama and Mistral those of the authors, and others with Qwen and Gemma
DEFAULT, OTHERS = ("k_proj", "v_proj", FEED_FORWARD), ("q_proj", "v_proj", FEED_FORWARD)


def to_peft(adapter: IA3, params: Params, config: DecoderConfig) -> tuple[Settings, Tensors]:
    """Params `{"k_proj": {"gain": [L, outputs...]}, ...}` as `ia3_l`: [out, 1] of outputs, [1, in] of inputs.

    A module has factors on its outputs or its inputs. up_proj's are written as those of the input of down_proj, as in
    the paper, unless down_proj has factors of its own.
    """
    modules = {name: name for name in adapter.projections}
    if "up_proj" in modules and FEED_FORWARD not in modules:
        modules["up_proj"] = FEED_FORWARD
    inputs = [FEED_FORWARD] if modules.get("up_proj") == FEED_FORWARD else []
    tensors = {}
    for name, module in modules.items():
        for layer, gain in enumerate(np.asarray(params[name]["gain"], np.float32)):
            shape = (1, -1) if module in inputs else (-1, 1)
            tensors[_name(layer, module)] = np.ascontiguousarray(gain.reshape(shape))
    settings = common("IA3") | {"target_modules": [*modules.values()], "feedforward_modules": inputs}
    return settings, tensors


def from_peft(settings: Settings, tensors: Tensors, config: DecoderConfig) -> tuple[IA3, Params]:
    """The inverse of `to_peft`. Factors on the outputs of up_proj and on the inputs of down_proj are multiplied.

    Raises:
        InputError: if this package cannot represent the adapter.
    """
    check(settings, READ, INERT, REFUSED)
    adapted = {match[2] for match in map(NAME.fullmatch, tensors) if match}
    modules = [name for name in PROJECTIONS if name in adapted]
    if not modules:
        raise InputError(f"none of the {len(tensors)} tensors has factors of a projection of Llama or Mistral")
    check_selected(settings, modules, config.layers, DEFAULT if config.is_llama else OTHERS)
    inputs = _inputs(settings, modules)
    dims = {name: BY_NAME[name].shape(config) for name in PROJECTIONS}
    shapes = {}
    for name in modules:
        count = math.prod(dims[name][-input_dims(name) :] if name in inputs else dims[name][: -input_dims(name)])
        shape = (1, count) if name in inputs else (count, 1)
        shapes |= {_name(layer, name): shape for layer in range(config.layers)}
    take(tensors, shapes)
    params: dict[str, dict[str, np.ndarray]] = {}
    for module in modules:
        name = "up_proj" if module in inputs else module
        gain = np.stack([tensors[_name(layer, module)] for layer in range(config.layers)])
        gain = gain.reshape(config.layers, *dims[name][: -input_dims(name)])
        params[name] = {"gain": gain * params[name]["gain"] if name in params else gain}
    return IA3(",".join(name.removesuffix("_proj") for name in PROJECTIONS if name in params)), params


def _inputs(settings: Settings, modules: Sequence[str]) -> set[str]:
    """The modules whose inputs are scaled: down_proj or none."""
    selected = settings.get("feedforward_modules")
    matches = by_name_or_pattern([FEED_FORWARD] if selected is None else selected, "feedforward_modules")
    inputs = {name for name in modules if matches(Module(name, layer=0).path)}
    if other := sorted(inputs - {FEED_FORWARD}):
        raise InputError(
            f"feedforward_modules has {other[0]}: of all inputs this package scales those of {FEED_FORWARD}, in which "
            "the factors of the output of up_proj appear"
        )
    return inputs


def _name(layer: int, name: str) -> str:
    return f"base_model.model.{module_path(name).format(layer)}.ia3_l"
