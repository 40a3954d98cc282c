"""Conversion between methods and PEFT types. A method without a PEFT type is refused, with an alternative."""

from jaxprefix.errors import InputError
from jaxprefix.io.messages import short_repr
from jaxprefix.models.adapters import Adapter, LlamaAdapter, LoRA, PrefixTuning, SoftPrompt, Sum
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.hooks import Params
from jaxprefix.peft import adaption_prompt, lora, prefix_tuning, prompt_tuning
from jaxprefix.peft.settings import TYPES, Settings, Tensors


def to_peft(
    adapter: Adapter, params: Params, config: DecoderConfig, projections: prefix_tuning.Projections
) -> tuple[Settings, Tensors]:
    """The adapter in PEFT's format.

    Args:
        projections: returns the frozen "k_proj" or "v_proj" of each layer.

    Raises:
        InputError: if no PEFT type can represent this adapter; says why, and what would work.
    """
    if isinstance(adapter, LoRA):
        return lora.to_peft(adapter, params, config)
    if isinstance(adapter, SoftPrompt):
        return prompt_tuning.to_peft(adapter, params, config)
    if isinstance(adapter, LlamaAdapter):
        return adaption_prompt.to_peft(adapter, params, config)
    if isinstance(adapter, PrefixTuning):
        if adapter.softmax == "split":
            return adaption_prompt.to_peft(adapter, params, config)
        return prefix_tuning.to_peft(adapter, params, config, projections)
    raise InputError(_why_not(adapter))


def from_peft(settings: Settings, tensors: Tensors, config: DecoderConfig) -> tuple[Adapter, Params]:
    """(adapter, parameters); InputError if this package cannot represent the adapter."""
    peft_type = settings.get("peft_type")
    if peft_type == "LORA":
        return lora.from_peft(settings, tensors, config)
    if peft_type == "PREFIX_TUNING":
        return prefix_tuning.from_peft(settings, tensors, config)
    if peft_type == "ADAPTION_PROMPT":
        return adaption_prompt.from_peft(settings, tensors, config)
    if peft_type == "PROMPT_TUNING":
        return prompt_tuning.from_peft(settings, tensors, config)
    raise InputError(f"peft_type is {short_repr(peft_type)}; expected one of {', '.join(TYPES)}")


def _why_not(adapter: Adapter) -> str:
    if isinstance(adapter, Sum):
        name = "+".join(name for name, _ in adapter.members)
        return f"method {name}: no PEFT type can represent a sum; train one method alone to export it"
    reasons = {
        "none": "it has no parameters, so there is nothing to export",
        "full": "every weight was trained; export the whole checkpoint with --merge",
        "bottleneck": "PEFT has no bottleneck adapters; lora, prefix, llama-adapter and soft-prompt can be exported",
    }
    return f"method {adapter.method}: {reasons[adapter.method]}"  # type: ignore[attr-defined]
