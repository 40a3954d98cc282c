"""The methods: a closed union, one file a method."""

from jaxprefix.models.adapters.adapter import Adapter
from jaxprefix.models.adapters.full import FullFineTuning
from jaxprefix.models.adapters.lora import LoRA
from jaxprefix.models.adapters.none import NoAdapter
from jaxprefix.models.adapters.prefix import PrefixTuning
from jaxprefix.models.adapters.sum import Sum

__all__ = ["METHODS", "Adapter", "FullFineTuning", "LoRA", "NoAdapter", "PrefixTuning", "Sum"]

METHODS = (NoAdapter, PrefixTuning, LoRA, FullFineTuning)
