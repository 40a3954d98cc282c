"""Configurations of real models: those that load have the published number of parameters; each other one says why."""

import re

import pytest
import torch
from real_configs import LOADED, REFUSED
from reference import hugging_face as hf

from jaxprefix.errors import InputError
from jaxprefix.models.adapters import NoAdapter
from jaxprefix.models.config import DecoderConfig
from jaxprefix.runs.base_model import parameter_counts

CLASSES = {model.__name__: (config, model) for config, model in hf.CLASSES.values()}


def count(name: str) -> int:
    trainable, total = parameter_counts(DecoderConfig.parse(LOADED[name][0]), NoAdapter())
    assert trainable == 0
    return total


def test_the_corpus_is_large_enough():
    assert len(LOADED) >= 40 and len(REFUSED) >= 20


@pytest.mark.parametrize("name", LOADED)
def test_the_published_count(name: str):
    published, total = LOADED[name][1], count(name)
    if isinstance(published, int):
        assert total == published
    else:  # "7.55B": rounded to the digits of the text
        digits = len(published.partition(".")[2]) - 1
        assert f"{total / 1e9:.{digits}f}B" == published


@pytest.mark.parametrize("name", LOADED)
def test_transformers_counts_the_same(name: str):
    """Its own model of the same file, on torch's device without memory."""
    config_class, model_class = CLASSES[LOADED[name][0]["architectures"][0]]
    config = config_class.from_dict(dict(LOADED[name][0]))
    with torch.device("meta"):
        model = model_class(config)
    ours = DecoderConfig.parse(LOADED[name][0])
    assert count(name) == sum(parameter.numel() for parameter in model.parameters())  # a tied head once
    if ours.is_llama:
        assert ours.rope.theta == config.rope_parameters["rope_theta"]
        assert ours.window == getattr(config, "sliding_window", None)
    assert ours.head_size == getattr(config, "head_dim", config.hidden_size // config.num_attention_heads)


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str):
    values, why = REFUSED[name]
    with pytest.raises(InputError, match=re.escape(why)) as raised:
        DecoderConfig.parse(values)
    assert "\n" not in str(raised.value)
