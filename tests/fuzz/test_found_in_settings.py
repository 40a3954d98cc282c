"""Faults that fuzzing found in the readers of config.json, run.json, indexes and rows, each by its name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from strict import ends, returns_or_says_why
from test_fuzzed_settings import LLAMA, MISTRAL, RUN

from jaxprefix.errors import InputError
from jaxprefix.io.hub import model_directory
from jaxprefix.models import weights
from jaxprefix.models.adapters import LoRA, PrefixTuning
from jaxprefix.models.config import DecoderConfig, notes
from jaxprefix.runs.directory import read_run
from jaxprefix.tasks.user_rows import own_rows_task

pytestmark = pytest.mark.usefixtures("little_memory")


def refused(read: Callable[[], Any], place: Path, expected: str) -> None:
    """One short line that names the location and the expected value, without delay."""
    with ends(), pytest.raises(InputError) as raised:
        read()
    assert not returns_or_says_why(read, place)
    assert expected in str(raised.value)


def without(values: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != name}


DEEP = "[" * 3000 + "]" * 3000
CONFIGS: dict[str, tuple[str, str]] = {
    "deep nesting ended the stack": (f'{{"id2label": {DEEP}}}', "is not JSON: nested deeper than 100 levels"),
    "an integer of 5,000 digits": (f'{{"vocab_size": {"9" * 5000}}}', "Exceeds the limit (4300 digits)"),
    "a key twice": ('{"vocab_size": 1, "vocab_size": 2}', "the key 'vocab_size' occurs twice in one object"),
    "half a surrogate pair": ('{"architectures": ["\\ud800"]}', "half a surrogate pair"),
    "a long list as the message": (json.dumps(LLAMA | {"num_layers": ["y" * 99] * 999}), "num_layers ['yyy"),
    "a long key as the message": (json.dumps(LLAMA | {"rope_scaling": {"x" * 9999: 1}}), "and no rope_type; expected"),
    "a size beyond floats": (json.dumps(LLAMA | {"hidden_size": 10**400}), "; expected at most 16777216"),
    "layers that fill the memory": (json.dumps(LLAMA | {"num_hidden_layers": 10**9}), "expected at most 10000"),
    "sizes that overflow": (json.dumps(LLAMA | {"num_attention_heads": 2**20, "head_dim": 2**20}), "wider together"),
    "rms_norm_eps is nan": (json.dumps(LLAMA | {"rms_norm_eps": float("nan")}), "is nan; expected a number of at"),
    "rope_theta is infinite": (json.dumps(LLAMA | {"rope_theta": float("inf")}), "is inf; expected a number above 0"),
    "rope_theta is 0": (json.dumps(LLAMA | {"rope_theta": 0}), "rope_theta is 0; expected a number above 0"),
    "a number beyond floats": (json.dumps(LLAMA | {"rope_theta": 10**400}), "a number above 0, and at most 1e+30"),
    "tied by a text": (json.dumps(LLAMA | {"tie_word_embeddings": "false"}), "is 'false'; expected true or false"),
    "biased by a text": (json.dumps(LLAMA | {"attention_bias": "no"}), "attention_bias is 'no'; expected true or"),
    "layer_types is a number": (json.dumps(LLAMA | {"layer_types": 5}), "layer_types has 5"),
    "layer_types of lists": (json.dumps(LLAMA | {"layer_types": [[], {}]}), "layer_types has [[], {}]"),
    "layer_types of mixed kinds": (json.dumps(LLAMA | {"layer_types": [1, "a"]}), "layer_types has [1, 'a']"),
    "rope_scaling is an empty list": (json.dumps(LLAMA | {"rope_scaling": []}), "rope_scaling is []; expected an obj"),
    "two types of rope": (
        json.dumps(MISTRAL | {"rope_parameters": {"rope_type": "linear", "type": "llama3", "factor": 2}}),
        "rope_type 'linear' and type 'llama3' contradict each other",
    ),
    "a passage between equal factors": (
        json.dumps(LLAMA | {"rope_scaling": LLAMA["rope_scaling"] | {"low_freq_factor": 4.0}}),
        "low_freq_factor 4.0 is not below high_freq_factor 4.0",
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_config_json(name: str, place: Path):
    found, expected = CONFIGS[name]
    (place / "config.json").write_text(found)
    refused(lambda: DecoderConfig.read(place), place / "config.json", expected)


def test_the_largest_sizes_can_be_described(place: Path):
    largest = {"hidden_size": 2**24, "intermediate_size": 2**24, "vocab_size": 2**24, "num_hidden_layers": 10_000}
    config = DecoderConfig.parse(LLAMA | largest)
    with ends():
        assert len(weights.disk_shapes(config)) == 9 * 10_000 + 3


def own(name: str, **settings: Any) -> dict[str, Any]:
    return RUN | {"config": RUN["config"] | {name: settings}}  # type: ignore[operator]


RUNS: dict[str, tuple[Any, str]] = {
    "no base": (without(RUN, "base"), "its base is missing; expected a text"),
    "a base of another type": (RUN | {"base": 5}, "its base is 5; expected a text"),
    "versions in a list": (RUN | {"versions": ["0.10"]}, "its versions is ['0.10']; expected an object or null"),
    "steps are true": (RUN | {"steps": True}, "its steps is True; expected a whole number"),
    "the configuration is a list": (RUN | {"config": []}, "its config is []; expected an object"),
    "a method that is a list": (RUN | {"config": {"method": ["lora"]}}, "method is ['lora']; expected a text"),
    "data that is a number": (RUN | {"config": {"data": 7}}, "data is 7; expected a path or null"),
    "an unknown type of weights": (RUN | {"config": {"dtype": "banana"}}, "dtype is 'banana'; expected auto, float32"),
    "chat by a text": (RUN | {"config": {"chat": "no"}}, "chat is 'no'; expected true or false"),
    "a negative length": (RUN | {"config": {"max_length": -5}}, "--max-length is -5; expected more than 0"),
    "a batch of 10^12": (RUN | {"config": {"batch": 10**12}}, "--batch is 1000000000000; expected at most 2147483647"),
    "a method's settings are a text": (RUN | {"config": {"lora": "r"}}, "lora is 'r'; expected an object"),
    "an unknown setting of a method": (own("lora", banana=1), "unknown setting 'lora.banana'"),
    "a rank that is a text": (own("lora", rank="4"), "lora.rank is '4'; expected a whole number"),
    "an alpha beyond floats": (own("lora", alpha=10**400), "; expected a number"),
    "slots that fill the memory": (own("prefix", length=10**9, start="vocabulary"), "expected at most 1048576"),
    "a method 10,000 times": (RUN | {"config": {"method": "+".join(["lora"] * 9999)}}, "names 9999 methods"),
}


@pytest.mark.parametrize("name", RUNS)
def test_run_json(name: str, place: Path):
    found, expected = RUNS[name]
    (place / "run.json").write_text(json.dumps(found))
    refused(lambda: read_run(place), place / "run.json", expected)


def test_a_deep_run_json(place: Path):
    (place / "run.json").write_text(DEEP)
    refused(lambda: read_run(place), place / "run.json", "nested deeper than 100 levels; restore it")


def test_settings_of_a_gigabyte_are_not_read(place: Path):
    with (place / "config.json").open("wb") as file:
        file.truncate(2**30)  # a hole: it takes no room
    refused(lambda: DecoderConfig.read(place), place, "has 1073741824 bytes; expected at most 67108864")


def test_sizes_of_methods_are_bounded_from_the_command_line_too():
    with pytest.raises(InputError, match="lora rank is 2000000; expected at most 1048576"):
        LoRA(rank=2_000_000)
    with pytest.raises(InputError, match="prefix mlp is 2000000; expected at most 1048576"):
        PrefixTuning(mlp=2_000_000)


def test_a_home_directory_of_an_unknown_user():
    with pytest.raises(InputError, match="no such model directory: ~nobody-of-that-name/model"):
        model_directory("~nobody-of-that-name/model")


INDEXES: dict[str, tuple[Any, str]] = {
    "no weight_map": ({}, "has no weight_map from tensor names to files"),
    "an empty weight_map": ({"weight_map": {}}, "has no weight_map"),
    "a weight_map of mixed kinds": ({"weight_map": {"a": 1, "b": "c"}}, "has no weight_map"),
    "a weight_map of lists": ({"weight_map": {"a": []}}, "has no weight_map"),
    "a name that no file can have": ({"weight_map": {"a": "x" * 300 + ".safetensors"}}, "expected a .safetensors file"),
    "a path out of the directory": ({"weight_map": {"a": "../x.safetensors"}}, "points to '../x.safetensors'"),
    "an absolute path": ({"weight_map": {"a": "/x.safetensors"}}, "points to '/x.safetensors'"),
}


@pytest.mark.parametrize("name", INDEXES)
def test_the_index_of_shards(name: str, place: Path):
    found, expected = INDEXES[name]
    (place / weights.INDEX).write_text(json.dumps(found))
    config = DecoderConfig.parse(LLAMA)

    def read() -> None:
        with weights.opened(place, config):
            pass

    refused(read, place / weights.INDEX, expected)


ROWS: dict[str, tuple[str, bytes, str]] = {
    "deep nesting ended the stack": ("a.jsonl", b"\n" + DEEP.encode(), ":2: not a JSON object: nested deeper"),
    "100,000 digits": ("a.jsonl", b'{"id": ' + b"9" * 100_000 + b"}", ":1: not a JSON object: Exceeds the limit"),
    "half a surrogate pair": ("a.jsonl", b'{"prompt": "a", "response": "\\ud800"}', ":1: not a JSON object: not valid"),
    "half a pair as a key": ("a.json", b'[{"\\udfff": 1}]', "half a surrogate pair"),
    "a key twice": ("a.jsonl", b'{"prompt": "a", "prompt": "b"}', "the key 'prompt' occurs twice"),
    "a long value": ("a.jsonl", b'{"prompt": "a", "response": [' + b"1," * 9999 + b"1]}", '"response" is [1, 1,'),
    "a column twice": ("a.csv", b"prompt,response,prompt\na,b,c\n", "a column occurs twice in the header"),
}


@pytest.mark.parametrize("name", ROWS)
def test_rows(name: str, place: Path):
    file, found, expected = ROWS[name]
    (place / file).write_bytes(found)
    refused(lambda: own_rows_task(place / file), place / file, expected)


def test_a_parquet_file_of_bytes_that_are_not_text(place: Path):
    text = pyarrow.StringArray.from_buffers(1, pyarrow.py_buffer(b"\0\0\0\0\1\0\0\0"), pyarrow.py_buffer(b"\xff"))
    pyarrow.parquet.write_table(pyarrow.table({"prompt": text, "response": ["a"]}), place / "a.parquet")
    refused(lambda: own_rows_task(place / "a.parquet"), place / "a.parquet", "not a Parquet file: 'utf-8' codec")


def test_a_directory_like_a_column_adds_none_to_a_parquet_file(place: Path):
    (folder := place / "language=de").mkdir()
    pyarrow.parquet.write_table(pyarrow.table({"prompt": ["a"], "response": ["b"]}), folder / "a.parquet")
    assert own_rows_task(folder / "a.parquet").languages == ("en",)


@pytest.mark.parametrize("name", ["config.json", "a.jsonl", "a.json"])
def test_a_file_that_may_not_be_read(name: str, place: Path, monkeypatch: pytest.MonkeyPatch):
    (place / name).write_text("{}")

    def read_bytes(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    read = (lambda: DecoderConfig.read(place)) if name == "config.json" else (lambda: own_rows_task(place / name))
    refused(read, place / name, "cannot be read: Permission denied")


def test_long_keys_that_are_ignored_are_named_in_short(place: Path):
    (place / "config.json").write_text(json.dumps(LLAMA | {"x" * 9999: 1, "y\n": 2}))
    (line,) = notes(place)
    assert len(line) < 300 and "\n" not in line and line.endswith(f"{'x' * 57}..., y\\n")
