"""The published numbers of parameters, from the published configurations alone; no weight is read or made."""

import time
from dataclasses import replace

import jax
import pytest
from published import LLAMA_31_8B, MISTRAL_7B_V03, MISTRAL_SMALL_24B, MODELS

from jaxprefix.models.adapters import (
    IA3,
    Adapter,
    BottleneckAdapter,
    FullFineTuning,
    LlamaAdapter,
    LoRA,
    NoAdapter,
    PrefixTuning,
    SoftPrompt,
    Sum,
)
from jaxprefix.models.config import DecoderConfig, Rope
from jaxprefix.runs.base_model import parameter_counts, trainable_line

LLAMA, MISTRAL, SMALL = (DecoderConfig.parse(values) for values in (LLAMA_31_8B, MISTRAL_7B_V03, MISTRAL_SMALL_24B))
ALL_SEVEN = "q,k,v,o,gate,up,down"


@pytest.mark.parametrize("name", MODELS)
def test_total(name: str):
    values, total = MODELS[name]
    config = DecoderConfig.parse(values)
    assert parameter_counts(config, NoAdapter()) == (0, total)
    assert parameter_counts(config, FullFineTuning()) == (total, total)


# Llama 3.1 8B and Mistral 7B v0.3 have the same shapes (D 4096, 32 layers, N 32, K 8, H 128, F 14336).
@pytest.mark.parametrize("config", [LLAMA, MISTRAL], ids=["llama", "mistral"])
@pytest.mark.parametrize(
    ("adapter", "trainable"),
    [
        (PrefixTuning(length=10, layers="top:30"), 1_228_800),  # the study's 1.23M
        (PrefixTuning(), 1_228_800),  # and the default
        (PrefixTuning(length=10, layers="all"), 1_310_720),
        (PrefixTuning(length=10, layers="all", source="kv"), 655_360),
        (PrefixTuning(length=10, layers="top:30", softmax="split"), 1_228_800),
        (LlamaAdapter(length=10, layers="top:30", gate="head"), 1_229_760),
        (LlamaAdapter(length=10, layers="top:30", gate="layer"), 1_228_830),
        (LlamaAdapter(), 1_229_760),
        (SoftPrompt(length=10), 40_960),
        (BottleneckAdapter(size=64), 32 * 2 * 64 * 4096),
        (BottleneckAdapter(size=64, placement="houlsby"), 2 * 32 * 2 * 64 * 4096),
        (LoRA(rank=4, targets="q,k,v"), 2_359_296),
        (LoRA(), 2_359_296),
        (LoRA(rank=128, targets="q,k,v"), 75_497_472),  # the study's 75.5M
        (LoRA(rank=4, targets="q,v"), 1_703_936),
        (LoRA(rank=4, targets=ALL_SEVEN), 10_485_760),
        (LoRA(dora=True), 2_359_296 + 32 * (4096 + 1024 + 1024)),  # 2,555,904: a magnitude of each output
        (IA3(), 524_288),  # 32 · (1,024 + 1,024 + 14,336), as PEFT counts
        (IA3("q,o"), 32 * 2 * 4096),
        (Sum((("prefix", PrefixTuning()), ("lora", LoRA()))), 1_228_800 + 2_359_296),
        (Sum((("soft-prompt", SoftPrompt()), ("llama-adapter", LlamaAdapter()))), 40_960 + 1_229_760),
        # An MLP of M units: slots P·D, D·M + M inside, and M + 1 times what the plain slots have in each layer.
        (PrefixTuning(mlp=512), 10 * 4096 + 4096 * 512 + 512 + 30 * 4096 * 513),
        (PrefixTuning(source="kv", mlp=512), 10 * 4096 + 4096 * 512 + 512 + 30 * 2 * 1024 * 513),
    ],
    ids=str,
)
def test_trainable(config: DecoderConfig, adapter: Adapter, trainable: int):
    assert parameter_counts(config, adapter)[0] == trainable


def test_head_sizes_that_differ_from_hidden_size_over_heads():
    """Mistral Small: D 5120, N·H 4096, K·H 1024, 40 layers."""
    assert parameter_counts(SMALL, LoRA(rank=4, targets="q"))[0] == 40 * 4 * (5120 + 4096)
    assert parameter_counts(SMALL, LoRA(rank=4, targets="o"))[0] == 40 * 4 * (4096 + 5120)
    assert parameter_counts(SMALL, LoRA(rank=4, targets="k"))[0] == 40 * 4 * (5120 + 1024)
    assert parameter_counts(SMALL, PrefixTuning(length=10, layers="all", source="kv"))[0] == 40 * 2 * 10 * 1024


def test_the_line_that_every_run_prints():
    adapter = PrefixTuning(length=10, layers="top:30")
    assert trainable_line(LLAMA, adapter) == "trainable: 1,228,800 of 8,031,490,048 (0.0153%)"


def test_counting_makes_no_weight_and_is_fast():
    config = replace(LLAMA, layers=31, vocabulary_size=128_000)  # not counted before: nothing of it is cached
    before, start = {id(array) for array in jax.live_arrays()}, time.process_time()
    assert parameter_counts(config, FullFineTuning())[0] > 7e9
    assert time.process_time() - start < 2
    made = [array for array in jax.live_arrays() if id(array) not in before]
    assert sum(array.nbytes for array in made) < 1e6


def test_ropes_of_the_published_models():
    found = {name: DecoderConfig.parse(values).rope for name, (values, _) in MODELS.items()}
    assert found == {
        "Llama 3.1 8B": Rope(500_000.0, "llama3", 8.0, 1.0, 4.0, 8192),
        "Llama 3.2 1B": Rope(500_000.0, "llama3", 32.0, 1.0, 4.0, 8192),
        "Llama 3.2 3B": Rope(500_000.0, "llama3", 32.0, 1.0, 4.0, 8192),
        "Mistral 7B v0.3": Rope(1_000_000.0),
        "Mistral Small 24B": Rope(100_000_000.0),
    }
