"""Adapts frozen Llama and Mistral decoders in one language, measures zero-shot transfer to many (arXiv:2510.24619)."""

from typing import TYPE_CHECKING

from jaxprefix._version import __version__ as __version__
from jaxprefix.errors import InputError

if TYPE_CHECKING:
    from jaxprefix.api import LanguageModel, Sampling, load_model
    from jaxprefix.models.adapters import (
        IA3,
        BottleneckAdapter,
        FullFineTuning,
        LlamaAdapter,
        LoRA,
        NoAdapter,
        PrefixTuning,
        SoftPrompt,
        Sum,
    )
    from jaxprefix.train.optimizer import adapter_only

__all__ = [
    "IA3",
    "BottleneckAdapter",
    "FullFineTuning",
    "InputError",
    "LanguageModel",
    "LlamaAdapter",
    "LoRA",
    "NoAdapter",
    "PrefixTuning",
    "Sampling",
    "SoftPrompt",
    "Sum",
    "adapter_only",
    "load_model",
]


def __getattr__(name: str) -> object:
    """What notebooks import is found when it is asked for: the package's parts do not pay for all of it."""
    if name not in __all__:
        raise AttributeError(f"module 'jaxprefix' has no attribute {name!r}")
    from jaxprefix import api
    from jaxprefix.models import adapters
    from jaxprefix.train import optimizer

    if name == "adapter_only":
        return optimizer.adapter_only
    return getattr(adapters if name in adapters.__all__ else api, name)
