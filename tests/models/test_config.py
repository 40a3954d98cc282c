"""DecoderConfig is read strictly: what it does not understand is refused in one line that names it (law 8)."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from published import LLAMA_31_8B, LLAMA_32_1B, MISTRAL_7B_V03, MISTRAL_SMALL_24B
from transformers import LlamaConfig, MistralConfig, PreTrainedConfig

from jaxprefix.errors import InputError
from jaxprefix.models import config_keys
from jaxprefix.models.config import DecoderConfig, Rope, layer_range, notes

REMOVED = object()
LLAMA3 = LLAMA_31_8B["rope_scaling"]


def changed(base: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {name: value for name, value in (base | changes).items() if value is not REMOVED}


def test_a_published_llama():
    assert DecoderConfig.parse(LLAMA_32_1B) == DecoderConfig(
        vocabulary_size=128256,
        hidden_size=2048,
        intermediate_size=8192,
        layers=16,
        heads=32,
        kv_heads=8,
        head_size=64,
        norm_epsilon=1e-5,
        rope=Rope(500_000.0, "llama3", 32.0, 1.0, 4.0, 8192),
        max_positions=131072,
        tied=True,
        window=None,
    )


def test_a_published_mistral():
    assert DecoderConfig.parse(MISTRAL_SMALL_24B) == DecoderConfig(
        vocabulary_size=131072,
        hidden_size=5120,
        intermediate_size=32768,
        layers=40,
        heads=32,
        kv_heads=8,
        head_size=128,
        norm_epsilon=1e-5,
        rope=Rope(100_000_000.0),
        max_positions=32768,
        tied=False,
        window=None,
    )


def test_defaults_of_what_older_files_leave_out():
    old = changed(
        LLAMA_31_8B, num_key_value_heads=REMOVED, tie_word_embeddings=REMOVED, rope_scaling=None, mlp_bias=REMOVED
    )
    config = DecoderConfig.parse(old)
    assert (config.kv_heads, config.head_size, config.tied, config.rope) == (32, 128, False, Rope(500_000.0))


def test_mistral_window():
    assert DecoderConfig.parse(changed(MISTRAL_7B_V03, sliding_window=4096)).window == 4096


def test_both_places_of_rope_may_agree():
    parameters = LLAMA3 | {"rope_theta": 500_000.0}
    expected = DecoderConfig.parse(LLAMA_31_8B)
    assert DecoderConfig.parse(changed(LLAMA_31_8B, rope_scaling=REMOVED, rope_parameters=parameters)) == expected
    assert DecoderConfig.parse(changed(LLAMA_31_8B, rope_parameters=parameters)) == expected


def test_both_names_of_the_rope_type_may_occur_together():
    scaling = {"type": "linear", "rope_type": "linear", "factor": 4.0}
    assert DecoderConfig.parse(changed(LLAMA_31_8B, rope_scaling=scaling)).rope == Rope(500_000.0, "linear", 4.0)


def test_layer_types_that_agree_with_the_window():
    full = changed(MISTRAL_7B_V03, layer_types=["full_attention"] * 32)
    sliding = changed(MISTRAL_7B_V03, sliding_window=4096, layer_types=["sliding_attention"] * 32)
    assert (DecoderConfig.parse(full).window, DecoderConfig.parse(sliding).window) == (None, 4096)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another architecture": (changed(LLAMA_31_8B, architectures=["PhiForCausalLM"]), "['PhiForCausalLM']"),
    "two architectures": (changed(LLAMA_31_8B, architectures=["LlamaForCausalLM"] * 2), "LlamaForCausalLM"),
    "no architecture": (changed(LLAMA_31_8B, architectures=REMOVED), "architecture None"),
    "half of each head rotated": (changed(LLAMA_31_8B, partial_rotary_factor=0.5), "partial_rotary_factor is 0.5"),
    "quantised": (changed(LLAMA_31_8B, quantization_config={"bits": 4}), "quantization_config is not supported"),
    "4-bit": (
        changed(LLAMA_31_8B, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}),
        "quantization_config of 'bitsandbytes' is not supported: quantized weights are not read",
    ),
    "compressed": (changed(LLAMA_31_8B, compression_config={"format": "x"}), "compression_config is not supported"),
    "layers of other sizes": (changed(LLAMA_31_8B, per_layer_config={"0": {"head_dim": 64}}), "per_layer_config"),
    "another family's type": (
        changed(LLAMA_31_8B, model_type="mistral"),
        "model_type 'mistral' contradicts the architecture LlamaForCausalLM; expected 'llama'",
    ),
    "another number of layers": (
        changed(LLAMA_31_8B, num_layers=24),
        "num_layers 24 contradicts num_hidden_layers 32; expected one value",
    ),
    "grouped heads under another name": (
        changed(LLAMA_31_8B, num_key_value_heads=REMOVED, n_kv_heads=8),
        "n_kv_heads 8 contradicts num_key_value_heads 32",
    ),
    "another epsilon": (changed(LLAMA_31_8B, norm_eps=1e-6), "norm_eps 1e-06 contradicts rms_norm_eps 1e-05"),
    "another theta": (changed(LLAMA_31_8B, rotary_base=1e4), "rotary_base 10000.0 contradicts rope_theta 500000.0"),
    "another activation's name": (changed(LLAMA_31_8B, activation_function="gelu"), "activation_function 'gelu'"),
    "another head size": (changed(LLAMA_31_8B, kv_channels=64), "kv_channels 64 contradicts head_dim 128"),
    "two original lengths": (
        changed(LLAMA_31_8B, original_max_position_embeddings=4096),
        "original_max_position_embeddings is 4096 at the top and 8192 in the scaling",
    ),
    "a window that is not used": (
        changed(MISTRAL_7B_V03, sliding_window=4096, use_sliding_window=False),
        "sliding_window 4096 contradicts use_sliding_window false",
    ),
    "a Mistral without rope_theta": (changed(MISTRAL_7B_V03, rope_theta=REMOVED), "rope_theta is neither"),
    "a Llama 3 without rope_theta, by its vocabulary": (
        changed(LLAMA_31_8B, rope_theta=None, rope_scaling=None),
        "rope_theta is neither",
    ),
    "a Llama 3 without rope_theta, by its scaling": (
        changed(LLAMA_31_8B, rope_theta=REMOVED, vocab_size=32000),
        "rope_theta is neither",
    ),
    "another activation": (changed(LLAMA_31_8B, hidden_act="gelu"), "hidden_act 'gelu'"),
    "no activation": (changed(LLAMA_31_8B, hidden_act=REMOVED), "hidden_act None"),
    "attention biases": (changed(LLAMA_31_8B, attention_bias=True), "attention_bias is true"),
    "feed-forward biases": (changed(LLAMA_31_8B, mlp_bias=True), "mlp_bias is true"),
    "no rope_theta": (changed(LLAMA_31_8B, rope_theta=REMOVED), "rope_theta is neither"),
    "two rope_thetas": (
        changed(LLAMA_31_8B, rope_scaling=REMOVED, rope_parameters=LLAMA3 | {"rope_theta": 1e4}),
        "rope_theta is 500000.0 at the top and 10000.0",
    ),
    "two scalings": (
        changed(LLAMA_31_8B, rope_parameters={"rope_type": "default"}),
        "rope_scaling and rope_parameters",
    ),
    "rope_theta of words": (changed(LLAMA_31_8B, rope_theta="big"), "rope_theta is 'big'"),
    "yarn without its context": (
        changed(LLAMA_31_8B, rope_scaling={"rope_type": "yarn", "factor": 4.0}),
        "original_max_position_embeddings is missing",
    ),
    "yarn that shrinks": (
        changed(LLAMA_31_8B, rope_scaling={"rope_type": "yarn", "factor": 0.5}),
        "factor is 0.5; expected a number of at least 1",
    ),
    "dynamic": (changed(LLAMA_31_8B, rope_scaling={"type": "dynamic", "factor": 4.0}), "rope_type 'dynamic'"),
    "a type that is no word": (changed(LLAMA_31_8B, rope_scaling={"rope_type": ["yarn"]}), "rope_type ['yarn']"),
    "longrope": (changed(LLAMA_31_8B, rope_scaling={"rope_type": "longrope"}), "rope_type 'longrope'"),
    "scaling without a type": (changed(LLAMA_31_8B, rope_scaling={"factor": 4.0}), "'factor'"),
    "scaling that is no object": (changed(LLAMA_31_8B, rope_scaling="linear"), "'linear'"),
    "scaling without a factor": (changed(LLAMA_31_8B, rope_scaling={"type": "linear"}), "factor is missing"),
    "llama3 without its low factor": (
        changed(LLAMA_31_8B, rope_scaling={k: v for k, v in LLAMA3.items() if k != "low_freq_factor"}),
        "low_freq_factor is missing",
    ),
    "half of each head rotated, in the scaling": (
        changed(LLAMA_31_8B, rope_scaling=LLAMA3 | {"partial_rotary_factor": 0.5}),
        "partial_rotary_factor is 0.5",
    ),
    "a window in a Llama": (changed(LLAMA_31_8B, sliding_window=4096), "sliding_window 4096 in a Llama"),
    "a Mistral that is silent on its window": (
        changed(MISTRAL_7B_V03, sliding_window=REMOVED),
        "sliding_window is missing",
    ),
    "a window of no keys": (changed(MISTRAL_7B_V03, sliding_window=0), "sliding_window is 0"),
    "a Mistral without num_key_value_heads": (
        changed(MISTRAL_7B_V03, num_key_value_heads=REMOVED),
        "num_key_value_heads is missing",
    ),
    "mixed layers": (
        changed(MISTRAL_7B_V03, layer_types=["full_attention", "sliding_attention"] * 16),
        "['full_attention', 'sliding_attention']",
    ),
    "layer types that contradict the window": (
        changed(MISTRAL_7B_V03, sliding_window=4096, layer_types=["full_attention"] * 32),
        "full_attention",
    ),
    "layers missing": (changed(LLAMA_31_8B, num_hidden_layers=REMOVED), "num_hidden_layers is missing"),
    "layers negative": (changed(LLAMA_31_8B, num_hidden_layers=-1), "num_hidden_layers is -1"),
    "half a layer": (changed(LLAMA_31_8B, num_hidden_layers=1.5), "num_hidden_layers is 1.5"),
    "endless layers": (changed(LLAMA_31_8B, num_hidden_layers=float("inf")), "num_hidden_layers is inf"),
    "layers true": (changed(LLAMA_31_8B, num_hidden_layers=True), "num_hidden_layers is True"),
    "layers in words": (changed(LLAMA_31_8B, num_hidden_layers="32"), "num_hidden_layers is '32'"),
    "no epsilon": (changed(LLAMA_31_8B, rms_norm_eps=REMOVED), "rms_norm_eps is missing"),
    "heads that cannot be grouped": (
        changed(LLAMA_31_8B, num_key_value_heads=5),
        "num_attention_heads 32 is not a multiple of num_key_value_heads 5",
    ),
    "an odd head size": (changed(LLAMA_31_8B, head_dim=7), "head_dim 7 is odd"),
}


def assert_one_line(act: Callable[[], Any], *parts: str) -> None:
    with pytest.raises(InputError) as raised:
        act()
    message = str(raised.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize("name", REFUSED)
def test_refused(tmp_path: Path, name: str):
    values, named = REFUSED[name]
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert_one_line(lambda: DecoderConfig.read(tmp_path), str(tmp_path / "config.json"), named)


def test_all_problems_are_named_together():
    wrong = changed(
        LLAMA_31_8B,
        num_layers=24,
        hidden_act="gelu",
        mlp_bias=True,
        rope_theta=0,
        rope_scaling={"type": "dynamic"},
        rms_norm_eps=REMOVED,
        quantization_config={"quant_method": "awq"},
    )
    assert_one_line(
        lambda: DecoderConfig.parse(wrong),
        "7 problems: (1) quantization_config of 'awq'",
        "hidden_act 'gelu'",
        "mlp_bias is true",
        "rms_norm_eps is missing",
        "rope_theta is 0",
        "rope_type 'dynamic'",
        "(7) num_layers 24 contradicts num_hidden_layers 32",
    )


def test_null_is_the_same_as_a_missing_key():
    """What transformers makes of them too, where both are valid."""
    optional = "head_dim attention_bias mlp_bias tie_word_embeddings rope_scaling rope_parameters layer_types".split()
    keys = [*optional, "num_key_value_heads", "quantization_config", "partial_rotary_factor", "num_layers", "bias"]
    missing = changed(LLAMA_31_8B, **dict.fromkeys(keys, REMOVED))
    assert DecoderConfig.parse(missing | dict.fromkeys(keys)) == DecoderConfig.parse(missing)
    scaling = {name: None for name in ("type", "partial_rotary_factor", "attention_factor")}
    assert DecoderConfig.parse(changed(LLAMA_31_8B, rope_scaling=LLAMA3 | scaling)) == DecoderConfig.parse(LLAMA_31_8B)


def notes_of(directory: Path, values: dict[str, Any]) -> list[str]:
    path = directory / "config.json"
    path.write_text(json.dumps(values))
    DecoderConfig.read(directory)
    assert all(line.startswith(f"{path}: ") and "\n" not in line for line in notes(directory))
    return [line.removeprefix(f"{path}: ") for line in notes(directory)]


@pytest.mark.parametrize("values", [LLAMA_31_8B, LLAMA_32_1B, MISTRAL_7B_V03, MISTRAL_SMALL_24B])
def test_published_files_need_no_note(tmp_path: Path, values: dict[str, Any]):
    assert notes_of(tmp_path, values) == []


REAL_EXTRAS = {  # of files on the Hub
    "is_llama_config": True,
    "transformers.js_config": {"dtype": "q4"},
    "rope_interleaved": False,
    "num_layers": 32,
    "untie_embeddings_and_output_weights": True,
    "max_sequence_length": 2048,
    "model_max_length": 4096,
    "bias": False,
    "drop_path_rate": 0,
    "unsloth_version": None,
    "auto_map": {"AutoModelForCausalLM": "modeling.Model"},
}


def test_what_transformers_does_not_read_is_ignored_and_named(tmp_path: Path):
    scaling = LLAMA3 | {"finetuned": True}
    (line,) = notes_of(tmp_path, LLAMA_31_8B | REAL_EXTRAS | {"rope_scaling": scaling})
    names = [*sorted(set(REAL_EXTRAS) - {"unsloth_version"}), "rope_scaling.finetuned"]
    assert line == (
        f"ignored, as transformers' LlamaForCausalLM does not read them: {', '.join(names)}; "
        "LlamaForCausalLM is built in, and the repository's own code is not run"
    )
    assert DecoderConfig.parse(LLAMA_31_8B | REAL_EXTRAS) == DecoderConfig.parse(LLAMA_31_8B)


@pytest.mark.parametrize(("cls", "values"), [(LlamaConfig, LLAMA_31_8B), (MistralConfig, MISTRAL_7B_V03)])
def test_the_keys_that_are_read_are_those_of_transformers(cls: Any, values: dict[str, Any]):
    """Every field of its class is read or known to be inert here; what is ignored is no field of it."""
    fields = {field.name for field in dataclasses.fields(cls)}
    own = fields - {field.name for field in dataclasses.fields(PreTrainedConfig)}
    assert own <= config_keys.READ | config_keys.INERT
    assert not fields & set(config_keys.ignored(values | REAL_EXTRAS))


@pytest.mark.parametrize("theta", [{}, {"rope_theta": None}])
def test_llama_2_has_the_theta_of_transformers(tmp_path: Path, theta: dict[str, Any]):
    values = changed(LLAMA_31_8B, rope_theta=REMOVED, rope_scaling=None, vocab_size=32000) | theta
    expected = LlamaConfig(vocab_size=32000).rope_parameters
    assert DecoderConfig.parse(values).rope == Rope(expected["rope_theta"])
    assert notes_of(tmp_path, values) == ["rope_theta is missing: 10,000, as transformers' LlamaForCausalLM assumes"]


@pytest.mark.parametrize(
    ("text", "named"), [("{", "is not JSON"), ("[1]", "holds a list; expected an object"), ("\xff", "is not JSON")]
)
def test_refused_files(tmp_path: Path, text: str, named: str):
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    assert_one_line(lambda: DecoderConfig.read(tmp_path), str(tmp_path / "config.json"), named)


def test_a_missing_file(tmp_path: Path):
    assert_one_line(lambda: DecoderConfig.read(tmp_path), f"no config.json in {tmp_path}")


@pytest.mark.parametrize(
    ("text", "layers", "expected"),
    [
        ("all", 32, (0, 32)),
        ("top", 32, (2, 32)),
        ("top", 40, (2, 40)),
        ("top", 16, (1, 16)),
        ("top", 15, (0, 15)),
        ("top", 1, (0, 1)),
        ("top:30", 32, (2, 32)),
        ("top:32", 32, (0, 32)),
        ("2:32", 32, (2, 32)),
        ("0:1", 4, (0, 1)),
    ],
)
def test_layer_range(text: str, layers: int, expected: tuple[int, int]):
    assert layer_range(text, layers) == expected


@pytest.mark.parametrize("text", ["top:0", "top:5", "3:3", "2:5", "-1:3", "", "1", "1:", ":2", "top:", "best", "1:2:3"])
def test_layer_range_refused(text: str):
    assert_one_line(lambda: layer_range(text, 4), repr(text), "a model of 4", "2:4")
