"""Ours -> PEFT -> the same logits, PEFT -> ours -> the same tensors, for every type that holds a method."""

import json
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import theirs
from reference import hugging_face as hf
from safetensors.numpy import load_file

from jaxprefix.models.adapters import IA3, Adapter, LlamaAdapter, LoRA, PrefixTuning, SoftPrompt
from jaxprefix.peft.convert import FROM_PEFT, from_peft, to_peft
from jaxprefix.peft.files import read_adapter

pytestmark = pytest.mark.filterwarnings(theirs.IGNORED)

ALL = "q,k,v,o,gate,up,down"
METHODS: dict[str, Adapter] = {
    "lora": LoRA(3, 7.5, ALL),
    "dora": LoRA(3, 7.5, ALL, dora=True),
    "lora of q": LoRA(2, 2.0, "q"),
    "ia3": IA3(),
    "ia3 of all": IA3(ALL),
    "prefix kv": PrefixTuning(5, "all", "kv"),
    "prefix hidden": PrefixTuning(5, "all"),
    "prefix mlp": PrefixTuning(4, "all", "kv", mlp=6),
    "prefix hidden mlp": PrefixTuning(4, "all", mlp=6),
    "prefix split": PrefixTuning(5, "top:2", softmax="split"),
    "llama-adapter": LlamaAdapter(5, "top", gate="layer"),
    "llama-adapter identity": LlamaAdapter(5, "all", gate="layer", activation="identity"),
    "soft-prompt": SoftPrompt(5, start="random"),
}
# A window acts on PEFT's prefix, not on ours; PEFT's adaption prompts fail where N·H is not D.
KINDS = {
    "grouped heads": tuple(METHODS),
    "one key head": ("prefix hidden", "llama-adapter", "ia3"),
    "llama3 rope": ("prefix kv",),
    "linear rope": ("prefix kv",),
    "yarn": ("prefix kv", "prefix hidden"),
    "mistral window": ("lora", "llama-adapter", "soft-prompt"),
    "heads wider than hidden": ("lora", "dora", "prefix kv", "soft-prompt", "ia3 of all"),
    "heads narrower than hidden": ("lora", "prefix hidden"),
    "mistral without window": ("prefix kv",),
    "tied": ("lora", "soft-prompt"),
    "qwen2": ("lora", "ia3 of all", "prefix kv", "prefix hidden", "soft-prompt"),
    "qwen3": ("lora", "ia3", "prefix hidden", "soft-prompt"),
    "smollm3": ("lora", "prefix kv", "prefix hidden", "soft-prompt"),
    "gemma3": ("lora", "ia3 of all", "soft-prompt"),
    "gemma3, long": ("prefix kv", "prefix hidden"),
    "apertus": ("lora of q", "ia3", "prefix kv", "prefix hidden", "soft-prompt"),
}
FEW = [
    ("llama3 rope", "prefix kv"),
    ("yarn", "prefix hidden"),
    ("mistral window", "llama-adapter"),
    ("heads wider than hidden", "lora"),
    ("qwen2", "ia3 of all"),
    ("qwen2", "prefix hidden"),
    ("qwen3", "prefix hidden"),
    ("smollm3", "prefix kv"),
    ("gemma3", "soft-prompt"),
    ("gemma3, long", "prefix hidden"),
    ("apertus", "ia3"),
]
CASES = [
    (kind, name) if kind == "grouped heads" or (kind, name) in FEW else pytest.param(kind, name, marks=pytest.mark.slow)
    for kind, names in KINDS.items()
    for name in names
]


class Pairs(dict[str, hf.Pair]):
    """A model of each kind, made when it is first asked for."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self.factory = factory

    def __missing__(self, kind: str) -> hf.Pair:
        self[kind] = hf.make(hf.KINDS[kind], self.factory.mktemp("model"))
        return self[kind]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, hf.Pair]:
    return Pairs(tmp_path_factory)


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_peft_loads_what_we_write(pairs: dict[str, hf.Pair], tmp_path: Path, kind: str, name: str):
    pair, adapter = pairs[kind], METHODS[name]
    params = theirs.drawn(adapter, pair.config)
    ours = theirs.our_logits(pair.config, pair.frozen, adapter, params)
    found = theirs.their_logits(theirs.load(pair, theirs.export(pair, adapter, params, tmp_path / "out")))
    print(f"largest difference {np.abs(ours - found).max():.1e}")
    assert np.abs(ours - hf.torch_logits(pair.torch, theirs.ROWS)[theirs.ROWS.mask]).max() > 0.1
    np.testing.assert_allclose(found, ours, rtol=0, atol=3e-5)  # up to 1.2e-5 was seen


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("grouped heads", "prefix kv"),
        pytest.param("llama3 rope", "prefix hidden", marks=pytest.mark.slow),
        pytest.param("heads wider than hidden", "prefix mlp", marks=pytest.mark.slow),
        pytest.param("gemma3, long", "prefix kv", marks=pytest.mark.slow),
    ],
)
def test_peft_loads_a_cartridge(pairs: dict[str, hf.Pair], tmp_path: Path, kind: str, name: str):
    """Its encoder has no frozen token, and all numbers are those of the prefix."""
    pair, adapter = pairs[kind], METHODS[name]
    params = theirs.drawn(adapter, pair.config)
    model = theirs.load(pair, theirs.export(pair, adapter, params, tmp_path / "out", as_cartridge=True))
    encoder = model.prompt_encoder["default"]
    assert isinstance(encoder, peft.CartridgeEncoder)
    assert (encoder.num_frozen_tokens, encoder.num_trainable_tokens) == (0, adapter.length)
    ours, found = theirs.our_logits(pair.config, pair.frozen, adapter, params), theirs.their_logits(model)
    print(f"largest difference {np.abs(ours - found).max():.1e}")
    assert np.abs(ours - hf.torch_logits(pair.torch, theirs.ROWS)[theirs.ROWS.mask]).max() > 0.1
    np.testing.assert_allclose(found, ours, rtol=0, atol=1e-5)


def test_every_type_is_written_and_read_here(pairs: dict[str, hf.Pair]):
    """A type that is added without a case in METHODS and PEFTS fails."""
    pair = pairs["grouped heads"]
    written = {
        to_peft(adapter, theirs.drawn(adapter, pair.config), pair.config, partial(hf.project, pair), cartridge)[0][
            "peft_type"
        ]
        for name, adapter in METHODS.items()
        for cartridge in {False, name == "prefix kv"}
    }
    read = {case.make(**case.settings).peft_type.value for case in PEFTS.values()}
    assert written == read == set(FROM_PEFT)


def test_a_window_counts_the_prefix_in_peft(pairs: dict[str, hf.Pair], tmp_path: Path):
    """What the command's note says: the same numbers while prefix and text fit the window, others beyond."""
    pair, adapter = pairs["mistral window"], PrefixTuning(2, "all", "kv")
    rows = hf.rows("right", lengths=(8,))
    params = theirs.drawn(adapter, pair.config)
    ours = theirs.our_logits(pair.config, pair.frozen, adapter, params, rows)
    found = theirs.their_logits(theirs.load(pair, theirs.export(pair, adapter, params, tmp_path / "out")), rows)
    fits = pair.config.window - adapter.length
    np.testing.assert_allclose(found[:fits], ours[:fits], rtol=0, atol=1e-5)
    assert np.abs(found - ours)[fits:].max(axis=1).min() > 1e-3


@dataclass(frozen=True)
class Theirs:
    """A PEFT configuration, and how near its tensors come back."""

    make: type[peft.PeftConfig]
    settings: dict[str, Any] = field(default_factory=dict)
    tolerance: float = 0.0


LORA = {"r": 3, "lora_alpha": 5, "target_modules": ["q_proj", "v_proj", "down_proj"], "init_lora_weights": False}
PEFTS = {
    "LORA": Theirs(peft.LoraConfig, LORA),
    "LORA of a pattern": Theirs(peft.LoraConfig, LORA | {"target_modules": r".*\.(o|up)_proj", "lora_dropout": 0.1}),
    "LORA of all": Theirs(peft.LoraConfig, LORA | {"target_modules": "all-linear"}),
    "LORA, rank-stabilised": Theirs(peft.LoraConfig, LORA | {"use_rslora": True}),
    "LORA, gaussian": Theirs(peft.LoraConfig, LORA | {"init_lora_weights": "gaussian", "exclude_modules": ["lm_head"]}),
    "DORA": Theirs(peft.LoraConfig, LORA | {"use_dora": True, "lora_dropout": 0.1}),
    "DORA, rank-stabilised": Theirs(peft.LoraConfig, LORA | {"use_dora": True, "use_rslora": True}),
    "IA3": Theirs(peft.IA3Config),
    "IA3 of attention": Theirs(peft.IA3Config, {"target_modules": ["q_proj", "o_proj"], "feedforward_modules": []}),
    "IA3 of outputs": Theirs(peft.IA3Config, {"target_modules": r".*\.(up|down)_proj", "feedforward_modules": []}),
    "PREFIX_TUNING": Theirs(peft.PrefixTuningConfig, {"num_virtual_tokens": 6}, 1e-6),
    "PREFIX_TUNING, projected": Theirs(
        peft.PrefixTuningConfig, {"num_virtual_tokens": 6, "prefix_projection": True, "encoder_hidden_size": 9}, 1e-6
    ),
    "CARTRIDGE": Theirs(peft.CartridgeConfig, {"num_virtual_tokens": 6, "num_frozen_tokens": 2}, 1e-6),
    "ADAPTION_PROMPT": Theirs(peft.AdaptionPromptConfig, {"adapter_len": 4, "adapter_layers": 2}, 1e-6),
    "PROMPT_TUNING": Theirs(peft.PromptTuningConfig, {"num_virtual_tokens": 4}),
}


@pytest.mark.parametrize("name", PEFTS)
def test_we_load_what_peft_writes_and_give_it_back(pairs: dict[str, hf.Pair], tmp_path: Path, name: str):
    pair, case = pairs["grouped heads"], PEFTS[name]
    model = theirs.save(pair, case.make(task_type="CAUSAL_LM", **case.settings), tmp_path / "peft")
    settings, tensors, base = read_adapter(tmp_path / "peft")
    assert base is None
    adapter, params = from_peft(settings, tensors, pair.config)
    ours = theirs.our_logits(pair.config, pair.frozen, adapter, params)
    expected = theirs.their_logits(model)
    assert np.abs(expected - hf.torch_logits(pair.torch, theirs.ROWS)[theirs.ROWS.mask]).max() > 0.1
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)
    again, back = to_peft(adapter, params, pair.config, lambda _: [], as_cartridge=name == "CARTRIDGE")
    written = load_file(tmp_path / "peft" / "adapter_model.safetensors")
    assert set(back) == set(written)
    for key, tensor in written.items():
        if case.tolerance:
            np.testing.assert_allclose(back[key], tensor, rtol=0, atol=case.tolerance, err_msg=key)
        else:
            assert back[key].dtype == tensor.dtype and back[key].tobytes() == tensor.tobytes(), key
    assert again["peft_type"] == settings["peft_type"]


def test_a_rank_stabilised_alpha_is_kept_exactly(pairs: dict[str, hf.Pair], tmp_path: Path):
    """alpha/√r is (alpha·√r)/r; what goes back to PEFT is plain, with the same numbers."""
    pair = pairs["grouped heads"]
    model = theirs.save(pair, peft.LoraConfig(task_type="CAUSAL_LM", **LORA, use_rslora=True), tmp_path / "peft")
    settings, tensors, _ = read_adapter(tmp_path / "peft")
    adapter, params = from_peft(settings, tensors, pair.config)
    assert adapter.alpha == pytest.approx(5 * 3**0.5, rel=1e-12)
    plain = theirs.load(pair, theirs.export(pair, adapter, params, tmp_path / "again"))
    assert json.loads((tmp_path / "again" / "adapter_config.json").read_text()).get("use_rslora") is None
    np.testing.assert_allclose(theirs.their_logits(plain), theirs.their_logits(model), rtol=0, atol=1e-5)


def test_factors_of_up_and_of_the_input_of_down_are_multiplied(pairs: dict[str, hf.Pair], tmp_path: Path):
    """With all-linear PEFT has both; they scale the same numbers."""
    pair = pairs["grouped heads"]
    model = theirs.save(pair, peft.IA3Config(task_type="CAUSAL_LM", target_modules="all-linear"), tmp_path / "peft")
    settings, tensors, _ = read_adapter(tmp_path / "peft")
    adapter, params = from_peft(settings, tensors, pair.config)
    assert adapter == IA3("q,k,v,o,gate,up")
    ours = theirs.our_logits(pair.config, pair.frozen, adapter, params)
    np.testing.assert_allclose(ours, theirs.their_logits(model), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_read_as_float32(pairs: dict[str, hf.Pair], tmp_path: Path, dtype: str):
    import ml_dtypes  # numpy's bfloat16
    from safetensors.numpy import save_file

    pair = pairs["grouped heads"]
    theirs.save(pair, peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4), tmp_path / "peft")
    path = tmp_path / "peft" / "adapter_model.safetensors"
    half = {name: tensor.astype(getattr(ml_dtypes, dtype, dtype)) for name, tensor in load_file(path).items()}
    save_file(half, path)
    tensors = read_adapter(tmp_path / "peft")[1]
    assert tensors["prompt_embeddings"].dtype == np.float32
    assert np.array_equal(tensors["prompt_embeddings"], half["prompt_embeddings"].astype(np.float32))
