"""Adapts frozen Llama and Mistral decoders in one language, measures zero-shot transfer to many (arXiv:2510.24619)."""

from importlib import import_module
from typing import TYPE_CHECKING

from jaxprefix._version import __version__ as __version__
from jaxprefix.errors import InputError

if TYPE_CHECKING:
    from jaxprefix.api import Evaluation, EvaluationResult, LanguageModel, RunConfig, Sampling, load_model
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
    "Evaluation",
    "EvaluationResult",
    "FullFineTuning",
    "InputError",
    "LanguageModel",
    "LlamaAdapter",
    "LoRA",
    "NoAdapter",
    "PrefixTuning",
    "RunConfig",
    "Sampling",
    "SoftPrompt",
    "Sum",
    "adapter_only",
    "load_model",
]


def __getattr__(name: str) -> object:
    """Imports on first use, because the parts of the package do not need all of it."""
    if name not in __all__:
        raise AttributeError(f"module 'jaxprefix' has no attribute {name!r}")
    homes = ("models.adapters", "train.optimizer", "api")
    modules = (import_module(f"jaxprefix.{home}") for home in homes)
    return next(getattr(module, name) for module in modules if hasattr(module, name))
