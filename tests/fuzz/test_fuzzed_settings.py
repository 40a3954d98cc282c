"""config.json and run.json with any content."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import small
from mutation import written
from strict import fuzz, returns_or_says_why

from jaxprefix.models.config import DecoderConfig, notes
from jaxprefix.runs.config import RunConfig
from jaxprefix.runs.directory import read_run

pytestmark = pytest.mark.usefixtures("little_memory")

LLAMA: dict[str, Any] = small.SIZES | {
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "head_dim": 8,
    "tie_word_embeddings": False,
    "attention_bias": False,
}
MISTRAL: dict[str, Any] = small.SIZES | {
    "architectures": ["MistralForCausalLM"],
    "sliding_window": 64,
    "layer_types": ["sliding_attention"] * 3,
    "rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0},
}
RUN = {
    "config": RunConfig(model="model", method="prefix+lora", train_file=Path("rows.jsonl")).as_json(),
    **{"base": "5" * 64, "source": "en", "rows": "6" * 64, "steps": 4, "finished": True},
    **{"trainable_parameters": 10, "total_parameters": 100, "versions": {"jax": "0.10"}},
}


def test_the_valid_ones_are_read(place: Path):
    """The unchanged files are accepted, so that the changes are what is refused."""
    assert DecoderConfig.parse(LLAMA).rope.kind == "llama3" and DecoderConfig.parse(MISTRAL).window == 64
    assert RunConfig.from_json(RUN["config"]).method == "prefix+lora"  # type: ignore[arg-type]


@pytest.mark.parametrize("valid", [LLAMA, MISTRAL], ids=["llama", "mistral"])
def test_config_json(valid: dict[str, Any], place: Path):
    path = place / "config.json"

    def holds(found: bytes) -> bool:
        path.write_bytes(found)
        return returns_or_says_why(lambda: _usable(DecoderConfig.read(place), notes(place)), path)

    fuzz(written(valid), holds)


def _usable(config: DecoderConfig, lines: list[str]) -> None:
    assert all(line.isprintable() for line in lines)
    assert hash(config) == hash(dataclasses.replace(config))
    assert max(config.hidden_size, config.intermediate_size, config.vocabulary_size, config.layers) <= 2**24


def test_run_json(place: Path):
    path = place / "run.json"

    def holds(found: bytes) -> bool:
        path.write_bytes(found)
        return returns_or_says_why(lambda: RunConfig.from_json(read_run(place)["config"]).as_json(), path)

    fuzz(written(RUN), holds)
