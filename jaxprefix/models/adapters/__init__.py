"""The methods, one file for each."""

from jaxprefix.models.adapters.adapter import (
    IMPORTANCE,
    Adapter,
    EncodedPrompt,
    EncodeText,
    Mergeable,
    Method,
    Regularised,
    inference_form,
    needs_importance,
)
from jaxprefix.models.adapters.bottleneck import BottleneckAdapter
from jaxprefix.models.adapters.full import FullFineTuning
from jaxprefix.models.adapters.ia3 import IA3
from jaxprefix.models.adapters.llama_adapter import LlamaAdapter
from jaxprefix.models.adapters.lora import LoRA
from jaxprefix.models.adapters.none import NoAdapter
from jaxprefix.models.adapters.prefix import PrefixTuning
from jaxprefix.models.adapters.soft_prompt import SoftPrompt
from jaxprefix.models.adapters.sum import Sum, Summand, add

__all__ = [
    "IA3",
    "IMPORTANCE",
    "METHODS",
    "Adapter",
    "BottleneckAdapter",
    "EncodeText",
    "EncodedPrompt",
    "FullFineTuning",
    "LlamaAdapter",
    "LoRA",
    "Mergeable",
    "Method",
    "NoAdapter",
    "PrefixTuning",
    "Regularised",
    "SoftPrompt",
    "Sum",
    "Summand",
    "add",
    "inference_form",
    "needs_importance",
]

METHODS: tuple[type[Method], ...] = (
    NoAdapter,
    PrefixTuning,
    LlamaAdapter,
    SoftPrompt,
    LoRA,
    BottleneckAdapter,
    IA3,
    FullFineTuning,
)
