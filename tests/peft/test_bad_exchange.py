"""What cannot be exchanged is refused by name: one line, code 2, nothing written."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes  # numpy's float8
import numpy as np
import pytest
import small
import theirs
from safetensors.numpy import load_file, save_file

from jaxprefix.errors import InputError
from jaxprefix.io import terminal
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
from jaxprefix.models.config import DecoderConfig
from jaxprefix.peft import __main__ as command
from jaxprefix.peft.convert import from_peft, to_peft
from jaxprefix.peft.settings import Settings, Tensors
from jaxprefix.runs.base_model import BaseModel, open_base
from jaxprefix.runs.config import RunConfig
from jaxprefix.runs.saved import save_run

CONFIG = DecoderConfig.parse(small.SIZES)  # 3 layers, D 32, N 4, K 2, H 8
WIDE = DecoderConfig.parse(small.SIZES | {"head_dim": 12})


def out(adapter: Adapter, config: DecoderConfig = CONFIG, as_cartridge: bool = False) -> tuple[Settings, Tensors]:
    return to_peft(adapter, theirs.drawn(adapter, CONFIG), config, lambda _: [], as_cartridge)


EXPORTS: dict[str, tuple[Adapter, DecoderConfig]] = {
    "method none: it has no parameters": (NoAdapter(), CONFIG),
    "method full: every weight was trained; export the whole checkpoint with --merge": (FullFineTuning(), CONFIG),
    "method bottleneck: PEFT has no type for it; prefix, llama-adapter, soft-prompt, lora and ia3 have one": (
        BottleneckAdapter(),
        CONFIG,
    ),
    "method prefix+lora: no PEFT type can represent a sum": (
        Sum((("prefix", PrefixTuning(layers="all")), ("lora", LoRA()))),
        CONFIG,
    ),
    "prefix layers 'top:2' leave some of the 3 layers without a prefix": (PrefixTuning(layers="top:2"), CONFIG),
    "prefix source is 'kv' with softmax 'split': PEFT has no keys and values with a softmax of their own": (
        PrefixTuning(source="kv", softmax="split"),
        CONFIG,
    ),
    "llama-adapter gate is 'head': PEFT's ADAPTION_PROMPT has one gate per layer": (
        LlamaAdapter(),
        CONFIG,
    ),
    "llama-adapter layers '0:2' end below the top layer": (LlamaAdapter(layers="0:2", gate="layer"), CONFIG),
    "prefix layers '1:2' end below the top layer": (PrefixTuning(layers="1:2", softmax="split"), CONFIG),
    "PEFT's ADAPTION_PROMPT fails on this base: its heads are 48 wide together, but its hidden size is 32": (
        LlamaAdapter(gate="layer"),
        WIDE,
    ),
}


@pytest.mark.parametrize("message", EXPORTS)
def test_settings_that_no_peft_type_has(message: str):
    adapter, config = EXPORTS[message]
    with pytest.raises(InputError) as raised:
        out(adapter, config)
    assert str(raised.value).startswith(message) and "\n" not in str(raised.value)


GOOD: dict[str, tuple[Settings, Tensors]] = {
    "LORA": out(LoRA(3, 6.0, "q,down")),
    "DORA": out(LoRA(3, 6.0, "q,down", dora=True)),
    "IA3": out(IA3()),
    "PREFIX_TUNING": out(PrefixTuning(4, "all", "kv")),
    "CARTRIDGE": out(PrefixTuning(4, "all", "kv"), as_cartridge=True),
    "ADAPTION_PROMPT": out(LlamaAdapter(4, "top:2", gate="layer")),
    "PROMPT_TUNING": out(SoftPrompt(4, start="random")),
}
LAYER = "base_model.model.model.layers"
A, B = f"{LAYER}.1.self_attn.q_proj.lora_A.weight", f"{LAYER}.1.self_attn.q_proj.lora_B.weight"
PROMPT, GATE = f"{LAYER}.1.self_attn.adaption_prompt", f"{LAYER}.1.self_attn.adaption_gate"

# (type, changes to its settings, what the line says)
SETTINGS: list[tuple[str, Settings, str]] = [
    ("LORA", {"peft_type": "VERA"}, "peft_type is 'VERA'; expected one of LORA, IA3, PREFIX_TUNING, CARTRIDGE,"),
    ("LORA", {"peft_type": None}, "peft_type is None; expected one of"),
    ("LORA", {"task_type": "SEQ_CLS"}, "task_type is 'SEQ_CLS'; expected CAUSAL_LM"),
    ("LORA", {"use_dora": True}, "layers.0.mlp.down_proj.lora_magnitude_vector is missing (6 in all)"),
    ("LORA", {"use_dora": 1}, "use_dora is 1; expected true or false or null"),
    ("DORA", {"use_dora": False}, "down_proj.lora_magnitude_vector is unknown (6 in all)"),
    ("DORA", {"r": 2}, "lora_A.weight has shape [3, 32]; expected [2, 32]"),
    ("LORA", {"bias": "some"}, "bias is 'some'; expected none, all or lora_only"),
    ("LORA", {"lora_bias": True}, "lora_bias is True"),
    (
        "LORA",
        {"modules_to_save": ["lm_head"]},
        "modules_to_save is ['lm_head']: whole modules were trained beside ",
    ),
    ("LORA", {"modules_to_save": ["lm_head"]}, "merge them with PEFT (merge_and_unload, then save_pretrained) and use"),
    ("LORA", {"rank_pattern": {"q_proj": 2}}, "lora_A.weight has shape [3, 32]; expected [2, 32]"),
    ("LORA", {"rank_pattern": {"q_proj": 0}}, "rank_pattern of 'q_proj' is 0; expected a whole number of at least 1"),
    ("LORA", {"rank_pattern": ["q_proj"]}, "rank_pattern is ['q_proj']; expected an object or null"),
    (
        "LORA",
        {"rank_pattern": {"(q_proj": 2}},
        "rank_pattern is '(.*\\\\.)?((q_proj)', a pattern that cannot be matched",
    ),
    ("LORA", {"alpha_pattern": {"q_proj": "2"}}, "alpha_pattern of 'q_proj' is '2'; expected a number"),
    ("LORA", {"layers_to_transform": [0, 1]}, "layers.2.mlp.down_proj.lora_A.weight is unknown (4 in all)"),
    ("LORA", {"layers_to_transform": [3]}, "means no projection, the file has q_proj, down_proj"),
    (
        "LORA",
        {"layers_to_transform": ["0"]},
        "layers_to_transform is ['0'] with layers_pattern []; expected whole",
    ),
    ("LORA", {"layers_to_transform": [0], "target_modules": "all-linear"}, "and target_modules is a pattern, which"),
    ("LORA", {"layers_pattern": "layers"}, "layers_pattern is 'layers' without layers_to_transform"),
    ("LORA", {"layer_replication": [[0, 2]]}, "layer_replication is [[0, 2]]"),
    ("LORA", {"fan_in_fan_out": True}, "fan_in_fan_out is True"),
    ("LORA", {"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa': it changed the base's weights"),
    ("LORA", {"init_lora_weights": "pissa_niter_4"}, "init_lora_weights is 'pissa_niter_4'"),
    ("LORA", {"init_lora_weights": "olora"}, "init_lora_weights is 'olora'"),
    ("LORA", {"init_lora_weights": "corda"}, "init_lora_weights is 'corda'"),
    ("LORA", {"init_lora_weights": "loftq"}, "init_lora_weights is 'loftq'"),
    ("LORA", {"trainable_token_indices": [1]}, "unknown key 'trainable_token_indices' (value [1]); it could change"),
    ("LORA", {"invented_by_peft_1": True}, "unknown key 'invented_by_peft_1' (value True); it could change the numb"),
    ("LORA", {"r": 0}, "r is 0; expected a whole number of at least 1"),
    ("LORA", {"r": "three"}, "r is 'three'; expected a whole number"),
    ("LORA", {"r": True}, "r is True; expected a whole number"),
    ("LORA", {"lora_alpha": None}, "lora_alpha is None; expected a number"),
    ("LORA", {"lora_alpha": float("nan")}, "lora_alpha is nan; expected a number"),
    ("LORA", {"lora_dropout": 1.5}, "lora dropout is 1.5"),
    ("LORA", {"r": 4}, "has shape [3, 32]; expected [4, 32]"),
    ("LORA", {"target_modules": ["q_proj", "down_proj", "v_proj"]}, "means down_proj, q_proj, v_proj, the file has q_"),
    ("LORA", {"target_modules": ["q_proj"]}, "target_modules ['q_proj'] means q_proj, the file has q_proj, down_proj"),
    ("LORA", {"target_modules": None}, "target_modules None means q_proj, v_proj, the file has q_proj, down_proj"),
    (
        "LORA",
        {"target_modules": "all-linear", "exclude_modules": ["k_proj"]},
        "means down_proj, gate_proj, o_proj, q_p",
    ),
    ("LORA", {"target_modules": r".*\.mlp\..*"}, "means down_proj, gate_proj, up_proj, the file has q_proj, down_proj"),
    ("IA3", {"peft_type": "LORA"}, "unknown key 'feedforward_modules'"),
    ("IA3", {"modules_to_save": ["lm_head"]}, "modules_to_save is ['lm_head']: whole modules were trained"),
    ("IA3", {"fan_in_fan_out": True}, "fan_in_fan_out is True"),
    ("IA3", {"target_modules": ["k_proj", "down_proj"]}, "means down_proj, k_proj, the file has k_proj, v_proj, down_"),
    ("IA3", {"feedforward_modules": ["k_proj", "down_proj"]}, "feedforward_modules has k_proj: of all inputs this"),
    ("IA3", {"feedforward_modules": []}, "mlp.down_proj.ia3_l has shape [1, 64]; expected [32, 1]"),
    ("PREFIX_TUNING", {"num_virtual_tokens": 5}, "tensor prompt_embeddings has shape [4, 96]; expected [5, 96]"),
    ("PREFIX_TUNING", {"num_virtual_tokens": None}, "num_virtual_tokens is None"),
    ("PREFIX_TUNING", {"num_layers": 4}, "num_layers is 4; this base needs 3"),
    ("PREFIX_TUNING", {"num_attention_heads": 4}, "num_attention_heads is 4; this base needs 2"),
    ("PREFIX_TUNING", {"token_dim": 32}, "token_dim is 32; this base needs 16"),
    ("PREFIX_TUNING", {"num_transformer_submodules": 2}, "num_transformer_submodules is 2; this base needs 1"),
    ("PREFIX_TUNING", {"modules_to_save": ["norm"]}, "modules_to_save is ['norm']"),
    ("CARTRIDGE", {"num_virtual_tokens": 5}, "tensor prompt_embeddings has shape [4, 96]; expected [5, 96]"),
    ("CARTRIDGE", {"modules_to_save": ["norm"]}, "modules_to_save is ['norm']"),
    ("CARTRIDGE", {"peft_type": "PREFIX_TUNING", "num_frozen_tokens": 1}, "unknown key 'num_frozen_tokens' (value 1)"),
    ("ADAPTION_PROMPT", {"adapter_layers": 4}, "adapter_layers is 4; this base has 3 layers"),
    ("ADAPTION_PROMPT", {"adapter_layers": 3}, f"tensor {LAYER}.0.self_attn.adaption_gate is missing (2 in all)"),
    ("ADAPTION_PROMPT", {"adapter_layers": 1}, f"tensor {GATE} is unknown (2 in all)"),
    ("ADAPTION_PROMPT", {"adapter_len": 5}, f"tensor {PROMPT} has shape [1, 4, 32]; expected [1, 5, 32]"),
    ("ADAPTION_PROMPT", {"target_modules": "mlp"}, "target_modules is 'mlp'; expected 'self_attn'"),
    ("PROMPT_TUNING", {"token_dim": 64}, "token_dim is 64; this base needs 32"),
    ("PROMPT_TUNING", {"num_virtual_tokens": 3}, "tensor prompt_embeddings has shape [4, 32]; expected [3, 32]"),
    ("PROMPT_TUNING", {"modules_to_save": ["norm"]}, "modules_to_save is ['norm']"),
]


@pytest.mark.parametrize(("kind", "changes", "message"), SETTINGS)
def test_settings_that_cannot_be_represented(kind: str, changes: Settings, message: str):
    settings, tensors = GOOD[kind]
    assert from_peft(settings, tensors, CONFIG)
    with pytest.raises(InputError) as raised:
        from_peft(settings | changes, tensors, CONFIG)
    assert message in str(raised.value) and "\n" not in str(raised.value)


TENSORS: list[tuple[str, dict[str, Any], str]] = [
    ("LORA", {A: None}, f"tensor {A} is missing (1 in all)"),
    ("LORA", {B: np.zeros((16, 3))}, f"tensor {B} has shape [16, 3]; expected [32, 3]"),
    ("LORA", {"base_model.model.lm_head.lora_A.weight": np.zeros((3, 32))}, "lm_head.lora_A.weight is unknown (1 in"),
    ("LORA", {"base_model.model.model.embed_tokens.weight": np.zeros((9, 32))}, "embed_tokens.weight is unknown (1 in"),
    ("LORA", {A.replace("lora_A.weight", "base_layer.bias"): np.zeros(32)}, "q_proj.base_layer.bias is unknown (1 in"),
    ("LORA", {A.replace(".1.", ".3."): np.zeros((3, 32))}, "layers.3.self_attn.q_proj.lora_A.weight is unknown"),
    ("LORA", {A.replace("lora_A.weight", "lora_magnitude_vector"): np.zeros(32)}, "lora_magnitude_vector is unknown"),
    ("LORA", dict.fromkeys(GOOD["LORA"][1]), "none of the 0 tensors is a LoRA matrix"),
    ("PREFIX_TUNING", {"prompt_embeddings": None}, "tensor prompt_embeddings is missing"),
    ("PREFIX_TUNING", {"base_layer_table": np.zeros(3)}, "tensor base_layer_table is unknown"),
    ("ADAPTION_PROMPT", {GATE: np.zeros(4)}, f"tensor {GATE} has shape [4]; expected [1]"),
    ("PROMPT_TUNING", {"prompt_embeddings": np.zeros((4, 33))}, "has shape [4, 33]; expected [4, 32]"),
]


@pytest.mark.parametrize(("kind", "changes", "message"), TENSORS)
def test_tensors_that_do_not_fit(kind: str, changes: dict[str, Any], message: str):
    settings, tensors = GOOD[kind]
    changed = {name: tensor for name, tensor in (tensors | changes).items() if tensor is not None}
    with pytest.raises(InputError) as raised:
        from_peft(settings, changed, CONFIG)
    assert message in str(raised.value)


def test_dora_of_some_layers():
    settings, tensors = GOOD["DORA"]
    some = {name: tensor for name, tensor in tensors.items() if ".2." not in name}
    with pytest.raises(
        InputError, match="use_dora is true and 2 modules of q_proj, down_proj have no DoRA: here all l"
    ):
        from_peft(settings | {"layers_to_transform": [0, 1]}, some, CONFIG)


def test_adaption_prompts_on_a_base_where_peft_fails():
    with pytest.raises(InputError, match="its heads are 48 wide together"):
        from_peft(*GOOD["ADAPTION_PROMPT"], WIDE)


LINEAR = [f"{name}_proj" for name in "q k v o gate up down".split()]


def test_what_changes_no_number_is_skipped():
    settings, tensors = GOOD["LORA"]
    inert = {
        "auto_mapping": {"base_model_class": "LlamaForCausalLM"},
        "peft_version": "0.21.0",
        "runtime_config": {"ephemeral_gpu_offload": False},
        "eva_config": {"rho": 2.0},
        "bias": "all",
        "modules_to_save": [],
        "layers_to_transform": [],
        "rank_pattern": {"up_proj": 9},
        "init_lora_weights": "eva",
        "exclude_modules": r".*\.([kvo]|gate|up)_proj|lm_head",
        "target_modules": [*LINEAR, "lm_heads"],
        "task_type": None,
        "invented_by_peft_1": None,
        "invented_by_peft_2": [],
    }
    adapter, _ = from_peft(settings | inert, tensors, CONFIG)
    assert adapter == LoRA(3, 6.0, "q,down")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def change(name: str, value: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def apply(directory: Path) -> None:
        tensors = load_file(directory / "adapter_model.safetensors")
        save_file(tensors | {name: value(tensors[name])}, directory / "adapter_model.safetensors")

    return apply


def pickled(directory: Path) -> None:
    (directory / "adapter_model.safetensors").rename(directory / "adapter_model.bin")


def rename(directory: Path) -> None:
    config = json.loads((directory / "adapter_config.json").read_text())
    (directory / "adapter_config.json").write_text(json.dumps(config | {"lora_bias": True}))


HARM: dict[str, Callable[[Path], Any]] = {
    "no adapter_config.json in good; expected what PEFT's save_pretrained writes": (
        lambda place: (place / "adapter_config.json").unlink()
    ),
    "good/adapter_config.json is not JSON": lambda place: (place / "adapter_config.json").write_text("{"),
    "good/adapter_config.json holds a list; expected an object": (
        lambda place: (place / "adapter_config.json").write_text("[]")
    ),
    "good: lora_bias is True": rename,
    "no adapter_model.safetensors in good": lambda place: (place / "adapter_model.safetensors").unlink(),
    "good holds pickled weights (adapter_model.bin), which can run code": pickled,
    "good/adapter_model.safetensors is not a whole safetensors file": (
        lambda place: truncate(place / "adapter_model.safetensors")
    ),
    f"good/adapter_model.safetensors: tensor {A} is I32; expected one of F32, BF16, F16": (
        change(A, lambda tensor: tensor.astype(np.int32))
    ),
    f"tensor {A} is F8_E4M3; expected one of F32": change(A, lambda tensor: tensor.astype(ml_dtypes.float8_e4m3fn)),
    f"tensor {A} holds numbers that are not finite": change(A, lambda tensor: tensor * np.nan),
    f"tensor {B} holds numbers that are not finite": change(B, lambda tensor: tensor / 0.0),
}
IMPORT = "import good new --model model"
COMMANDS = {
    "import nowhere new --model model": "no adapter_config.json in nowhere",
    "import good files --model model": "files already has files; give a new directory",
    "import good file --model model": "file is a file; give a new directory",
    "import good file/new --model model": "file is a file; give a new directory",
    "import good new --model nowhere": "no such model directory: nowhere",
    "import good new": "good was made for another base (its hash is",
    "import good new --model other": "not for other",
    "export nowhere new": "nowhere is not a run",
    "export model new": "model is not a run",
    "export lora files": "files already has files; give a new directory",
    "export lora file": "file is a file; give a new directory",
    "export prefix new": "prefix layers 'top:2' leave some of the 3 layers without a prefix",
    "export llama-adapter new": "llama-adapter gate is 'head'",
    "export bottleneck new": "method bottleneck: PEFT has no type for it",
    "export prefix new --merge": "--merge: method prefix does more than change weights; only lora, ia3 and full can",
    "export lora new --shard-size 5GB": "--shard-size 5GB is for --merge; an adapter is one small file",
    "export lora new --merge --shard-size five": "--shard-size is 'five'; expected a size such as 5GB, 500MB or 20KB",
    "export lora new --merge --shard-size 0GB": "--shard-size is '0GB'; expected a size",
    "export lora new --cartridge": "--cartridge is for method prefix with softmax 'joint'; leave it out",
    "export prefix new --cartridge": "PEFT's PREFIX_TUNING gives a prefix to each",
    "export lora new --merge --cartridge": "--merge and --cartridge exclude each other; give one",
    "export lora files --merge": "files already has files; give a new directory",
    "export broken new": "layers.0.self_attn.q_proj.lora_A.weight holds numbers that are not finite",
}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, another one, runs of several methods, a good export, and files that must not be written over."""
    folder = tmp_path_factory.mktemp("bad")
    base = open_base(str(small.write_model(folder / "model")))
    small.write_model(folder / "other", scale=2.0)

    def write(name: str, adapter: Adapter, params: Any) -> None:
        config = RunConfig(model=base.name, method=name, **{name.replace("-", "_"): adapter})  # type: ignore[arg-type]
        save_run(folder / name, config, base, params, "en")

    for name, adapter in {
        "lora": LoRA(3, 6.0, "q,down"),
        "prefix": PrefixTuning(layers="top:2"),
        "llama-adapter": LlamaAdapter(),
        "bottleneck": BottleneckAdapter(),
    }.items():
        write(name, adapter, theirs.drawn(adapter, base.config))
    _broken(folder, base)
    (folder / "files").mkdir()
    (folder / "files" / "thesis.tex").write_text("years of work")
    (folder / "file").write_text("more of it")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["peft", "export", str(folder / "lora"), str(folder / "good")])
        command.main()
    return folder


def _broken(folder: Path, base: BaseModel) -> None:
    """A run whose training has diverged."""
    adapter = LoRA(3, 6.0, "q,down")
    params = theirs.drawn(adapter, base.config)
    params["q_proj"]["a"][:] = np.nan
    save_run(folder / "broken", RunConfig(model=base.name, method="lora", lora=adapter), base, params, "en")


@pytest.fixture
def place(template: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The runs name the base by its place, so the template is used as it is: nothing may be written into it."""
    monkeypatch.chdir(template)
    return template


def files(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in sorted(directory.rglob("*"))}


def assert_refused(arguments: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: Any, place: Path) -> None:
    before = files(place)
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["peft", *arguments.split()])
    with pytest.raises(SystemExit) as ended:
        terminal.run(command.main)
    assert ended.value.code == 2
    assert files(place) == before
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and said.endswith("\n")
    assert message in said


@pytest.mark.parametrize("arguments", COMMANDS)
def test_one_line_code_2_and_nothing_written(
    arguments: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert_refused(arguments, COMMANDS[arguments], monkeypatch, capsys, place)


@pytest.mark.parametrize("message", HARM)
def test_a_damaged_adapter(
    message: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "good").mkdir()
    for path in (place / "good").iterdir():
        (tmp_path / "good" / path.name).write_bytes(path.read_bytes())
    with np.errstate(all="ignore"):
        HARM[message](tmp_path / "good")
    monkeypatch.chdir(tmp_path)
    assert_refused(f"import good new --model {place / 'model'}", message, monkeypatch, capsys, tmp_path)


def test_the_undamaged_adapter_is_imported(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """So that it is the harm that is refused."""
    monkeypatch.setattr(sys, "argv", ["peft", "import", "good", str(tmp_path / "new"), "--model", "model"])
    command.main()
    assert (tmp_path / "new" / "run.json").is_file()


def test_a_merge_that_overflows_the_dtype(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """float16 ends at 65,504; nothing is left of what was begun."""
    (tmp_path / "half").mkdir()
    for path in (place / "model").iterdir():
        (tmp_path / "half" / path.name).write_bytes(path.read_bytes())
    tensors = load_file(tmp_path / "half" / "model.safetensors")
    save_file(
        {name: each.astype(np.float16) for name, each in tensors.items()}, tmp_path / "half" / "model.safetensors"
    )
    base, adapter = open_base(str(tmp_path / "half")), LoRA(3, 6e6, "q")
    params = theirs.drawn(adapter, base.config)
    save_run(tmp_path / "run", RunConfig(model=base.name, method="lora", lora=adapter), base, params, "en")
    monkeypatch.chdir(tmp_path)
    assert_refused(
        "export run new --merge", "would overflow float16; nothing was written", monkeypatch, capsys, tmp_path
    )
