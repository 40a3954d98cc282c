"""PrefixTuning <-> PEFT's CARTRIDGE: the tensor of PREFIX_TUNING, without its MLP.

PEFT keeps the first `num_frozen_tokens` virtual tokens of a CARTRIDGE as they are in training; their keys and values
are in the file with the others. Here all virtual tokens are trained.
"""

from jaxprefix.models.adapters import PrefixTuning
from jaxprefix.models.config import DecoderConfig
from jaxprefix.models.hooks import Params
from jaxprefix.peft import prefix_tuning
from jaxprefix.peft.settings import Settings, Tensors, common

FROZEN = "num_frozen_tokens"
OF_MLP = ("prefix_projection", "encoder_hidden_size")


def to_peft(
    adapter: PrefixTuning, params: Params, config: DecoderConfig, project: prefix_tuning.Project
) -> tuple[Settings, Tensors]:
    """As `prefix_tuning.to_peft`, with no frozen virtual token."""
    settings, tensors = prefix_tuning.to_peft(adapter, params, config, project)
    settings = {name: value for name, value in settings.items() if name not in OF_MLP}
    return settings | common("CARTRIDGE") | {FROZEN: 0}, tensors


def from_peft(settings: Settings, tensors: Tensors, config: DecoderConfig) -> tuple[PrefixTuning, Params]:
    """The inverse of `to_peft`, as `prefix_tuning.from_peft`. The number of frozen tokens changes no logit."""
    settings = {name: value for name, value in settings.items() if name != FROZEN}
    return prefix_tuning.from_peft(settings, tensors, config)
