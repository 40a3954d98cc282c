"""Conversion between methods and PEFT types. A method without a PEFT type is refused, with an alternative."""

from collections.abc import Callable, Mapping

from jaxprefix.errors import InputError
from jaxprefix.io.messages import short_repr
from jaxprefix.models.adapters import IA3, METHODS, Adapter, LlamaAdapter, LoRA, PrefixTuning, SoftPrompt, Sum
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.hooks import Params
from jaxprefix.peft import adaption_prompt, cartridge, ia3, lora, prefix_tuning, prompt_tuning
from jaxprefix.peft.settings import Settings, Tensors

# (adapter, params, config) -> (settings, tensors). A prefix in the softmax of the text has more arguments.
TO_PEFT: Mapping[type, Callable[..., tuple[Settings, Tensors]]] = {
    LoRA: lora.to_peft,
    IA3: ia3.to_peft,
    SoftPrompt: prompt_tuning.to_peft,
    LlamaAdapter: adaption_prompt.to_peft,
    PrefixTuning: adaption_prompt.to_peft,
}
# (settings, tensors, config) -> (adapter, params)
FROM_PEFT: Mapping[str, Callable[[Settings, Tensors, DecoderConfig], tuple[Adapter, Params]]] = {
    "LORA": lora.from_peft,
    "IA3": ia3.from_peft,
    "PREFIX_TUNING": prefix_tuning.from_peft,
    "CARTRIDGE": cartridge.from_peft,
    "ADAPTION_PROMPT": adaption_prompt.from_peft,
    "PROMPT_TUNING": prompt_tuning.from_peft,
}


def to_peft(
    adapter: Adapter,
    params: Params,
    config: DecoderConfig,
    project: prefix_tuning.Project,
    as_cartridge: bool = False,
) -> tuple[Settings, Tensors]:
    """The adapter in PEFT's format.

    Args:
        project: the frozen projections, which a hidden prefix passes.
        as_cartridge: write a prefix as CARTRIDGE, not as PREFIX_TUNING.

    Raises:
        InputError: if no PEFT type can represent this adapter; says why, and what would work.
    """
    if isinstance(adapter, PrefixTuning) and adapter.softmax == "joint":
        write = cartridge.to_peft if as_cartridge else prefix_tuning.to_peft
        return write(adapter, params, config, project)
    if as_cartridge:
        raise InputError("--cartridge is for method prefix with softmax 'joint'; leave it out")
    if type(adapter) not in TO_PEFT:
        raise InputError(_why_not(adapter))
    return TO_PEFT[type(adapter)](adapter, params, config)


def from_peft(settings: Settings, tensors: Tensors, config: DecoderConfig) -> tuple[Adapter, Params]:
    """(adapter, parameters); InputError if this package cannot represent the adapter."""
    peft_type = settings.get("peft_type")
    if not isinstance(peft_type, str) or peft_type not in FROM_PEFT:
        raise InputError(f"peft_type is {short_repr(peft_type)}; expected one of {', '.join(FROM_PEFT)}")
    return FROM_PEFT[peft_type](settings, tensors, config)


def _why_not(adapter: Adapter) -> str:
    if isinstance(adapter, Sum):
        name = "+".join(name for name, _ in adapter.members)
        return f"method {name}: no PEFT type can represent a sum; train one method alone to export it"
    method: str = adapter.method  # type: ignore[attr-defined]
    reasons = {
        "none": "it has no parameters, so there is nothing to export",
        "full": "every weight was trained; export the whole checkpoint with --merge",
    }
    *others, last = (kind.method for kind in METHODS if kind in TO_PEFT)
    no_type = f"PEFT has no type for it; {', '.join(others)} and {last} have one"
    return f"method {method}: {reasons.get(method, no_type)}"
