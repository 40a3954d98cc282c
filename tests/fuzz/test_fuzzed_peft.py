"""An adapter in PEFT's format with any content: the whole import except for writing the run."""

import functools
import io
import json
import struct
from contextlib import redirect_stdout
from pathlib import Path

import jax
import numpy as np
import pytest
import small
from mutation import changes, content, document, text
from safetensors.numpy import save
from strict import fuzz, returns_or_says_why

from jaxprefix.models import adapter_init, decoder
from jaxprefix.models.adapters import IA3, Adapter, LlamaAdapter, LoRA, PrefixTuning, SoftPrompt
from jaxprefix.peft import exchange
from jaxprefix.peft.convert import to_peft
from jaxprefix.peft.files import BASE, CONFIG, WEIGHTS
from jaxprefix.runs import base_model

pytestmark = pytest.mark.usefixtures("little_memory")

ADAPTERS: dict[str, Adapter] = {
    "LORA": LoRA(2, 4.0, "q"),
    "DORA": LoRA(2, 4.0, "q", dora=True),
    "IA3": IA3("k,up"),
    "PREFIX_TUNING": PrefixTuning(length=2, layers="all", source="kv"),
    "ADAPTION_PROMPT": LlamaAdapter(length=2, layers="top:2", gate="layer"),
    "PROMPT_TUNING": SoftPrompt(length=2, start="random"),
}
SIZES = {"hidden_size": 8, "intermediate_size": 4, "num_hidden_layers": 2, "head_dim": 2}
MORE = {"base_model_name_or_path": "meta-llama/Llama-3.2-1B", "revision": None, "auto_mapping": None}
OF_LORA = {"use_rslora": False, "exclude_modules": ["k_proj"], "init_lora_weights": True}
OF_LORA |= {"rank_pattern": {".*q_proj": 2}, "alpha_pattern": {"1.self_attn.q_proj": 3.0}, "layers_to_transform": None}


@pytest.fixture
def tiny(place: Path, monkeypatch: pytest.MonkeyPatch) -> base_model.BaseModel:
    """The base of every import, with its shapes; nothing is written."""
    monkeypatch.setattr(decoder, "shapes", functools.cache(decoder.shapes))
    opened = base_model.open_base(str(small.write_model(place / "base", **SIZES)))
    monkeypatch.setattr(exchange, "open_base", lambda model: opened)
    monkeypatch.setattr(exchange, "save_run", lambda *_: None)
    return opened


@pytest.mark.parametrize("kind", ADAPTERS)
def test_an_adapter(kind: str, place: Path, tiny: base_model.BaseModel):
    (directory := place / "adapter").mkdir()
    shapes = adapter_init.abstract_params(ADAPTERS[kind], tiny.config)
    params = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.5, np.float32), shapes)
    settings, tensors = to_peft(ADAPTERS[kind], params, tiny.config, lambda _: [])
    settings |= MORE | (OF_LORA if kind == "LORA" else {})
    if kind == "LORA":
        settings["target_modules"] = r".*\.(q_proj|k_proj)"
    whole = save(tensors, metadata={"format": "pt", BASE: tiny.fingerprint})
    size = struct.unpack_from("<Q", whole)[0]
    header, data = json.loads(whole[8 : 8 + size]), whole[8 + size :]

    def make(recipe: bytes) -> bytes:
        found, way = changes(recipe), recipe[-1] % 8
        if way < 5:
            first, second = text(document(settings, found)), whole
        elif way == 5:
            first, second = content(text(settings), found), whole
        elif way == 6:
            first, second = text(settings), content(whole, found)
        else:
            made = text(document(header, found))
            first, second = text(settings), struct.pack("<Q", len(made)) + made + data
        return _both(first, second)

    def holds(found: bytes) -> bool:
        size = struct.unpack_from("<Q", found)[0]
        (directory / CONFIG).write_bytes(found[8 : 8 + size])
        (directory / WEIGHTS).write_bytes(found[8 + size :])
        with redirect_stdout(io.StringIO()) as said:
            returned = returns_or_says_why(
                lambda: print(exchange.import_adapter(directory, place / "run", "base")), directory
            )
        assert said.getvalue().encode().count(b"\n") <= 2, said.getvalue()
        return returned

    assert holds(_both(text(settings), whole))
    fuzz(make, holds)


def _both(first: bytes, second: bytes) -> bytes:
    """Two files as one, with the length of the first in front."""
    return struct.pack("<Q", len(first)) + first + second
