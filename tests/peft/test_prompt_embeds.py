"""What the client in docs/ sends to vLLM is the input of our first layer. A local server takes vLLM's place."""

import base64
import importlib.util
import io
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes  # numpy's bfloat16
import numpy as np
import pytest
import sentencepiece
import small
import theirs
import torch
from reference import hugging_face as hf
from safetensors.numpy import load_file, save_file
from transformers import LlamaForCausalLM

from jaxprefix.errors import InputError
from jaxprefix.models import decoder, loading
from jaxprefix.models.adapters import LoRA, SoftPrompt
from jaxprefix.peft import __main__ as command
from jaxprefix.runs.base_model import BaseModel, open_base
from jaxprefix.runs.config import RunConfig
from jaxprefix.runs.saved import save_run

CLIENT = Path(__file__).parents[2] / "docs" / "vllm_client.py"
PROMPT = "The boat is red. What colour is the boat?"
ADAPTER = SoftPrompt(5, start="random")
TEMPLATE = (
    "{{ bos_token }}{% if strftime_now is defined %}{{ strftime_now('%-d %B %Y') }}{% endif %}"
    "[{{ messages[0].content | trim }}]{% if add_generation_prompt %}:{% endif %}"
)


@pytest.fixture(scope="module")
def client() -> Any:
    spec = importlib.util.spec_from_file_location("vllm_client", CLIENT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def server() -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """The address of a server that answers every completion with "blue", and its (path, body) so far."""
    requests: list[tuple[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            requests.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"choices": [{"text": "blue"}]}).encode())

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}/v1", requests
        listening.shutdown()
        thread.join()


def export(base: BaseModel, folder: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> tuple[Path, Any]:
    """A random soft prompt for the base, exported, and its parameters."""
    params = theirs.drawn(ADAPTER, base.config)
    config = RunConfig(model=str(base.directory), method="soft-prompt", soft_prompt=ADAPTER, **settings)
    save_run(folder / "run", config, base, params, "en")
    monkeypatch.setattr(sys, "argv", ["peft", "export", str(folder / "run"), str(folder / "out"), "--prompt-embeds"])
    command.main()
    return folder / "out", params


def our_embeds(base: BaseModel, params: Any, ids: list[int], dtype: Any = jnp.float32) -> np.ndarray:
    """The input of the first layer, with weights of this dtype."""
    frozen = jax.tree.map(lambda leaf: leaf.astype(dtype), loading.load(base.directory, base.config))
    _, hooks = ADAPTER.bind(base.config, params, frozen)
    batch = decoder.Batch(jnp.array([ids]), jnp.arange(len(ids))[None])
    return np.asarray(decoder.embed(base.config, frozen, batch, hooks)[0][0])


def sent(body: dict[str, Any]) -> torch.Tensor:
    """The tensor, read as vLLM reads it."""
    content = base64.b64decode(body["prompt_embeds"], validate=True)
    return torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")


def test_a_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Any, client: Any, capsys: Any):
    """The tensor is ours, and transformers computes our logits from it."""
    url, requests = server
    base = open_base(str(small.write_model(tmp_path / "model", scale=5.0)))
    out, params = export(base, tmp_path, monkeypatch)
    assert sorted(path.name for path in out.iterdir()) == [
        "prompt_embeds.json",
        "prompt_embeds.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["vllm_client", str(out), PROMPT, "--url", url])
    client.main()
    assert capsys.readouterr().out == "blue\n"
    [(path, body)] = requests
    tensor = sent(body)
    assert path == "/v1/completions"
    assert {name: value for name, value in body.items() if name != "prompt_embeds"} == {
        "model": str(base.directory),
        "prompt": "",
        "stop_token_ids": [1],
        "max_tokens": 64,
        "temperature": 0,
    }
    ids = base.tokenizer.prompt_ids(PROMPT + "\n")
    assert tensor.shape == (5 + len(ids), 32) and tensor.dtype == torch.float32
    np.testing.assert_array_equal(tensor.numpy(), our_embeds(base, params, ids))
    rows = hf.Rows(np.array([ids]), np.ones((1, len(ids)), bool))
    ours = theirs.our_logits(base.config, loading.load(base.directory, base.config), ADAPTER, params, rows)
    with torch.no_grad():
        found = hf.read(LlamaForCausalLM, base.directory)(inputs_embeds=tensor[None]).logits[0, 5:]
    np.testing.assert_allclose(found.numpy(), ours, rtol=0, atol=1e-5)


def test_a_factor_and_the_dtype_of_the_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: Any):
    """Gemma multiplies its embedding, and a soft prompt, by √D in the dtype of the weights."""
    kind = {"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "sliding_window": 8, "head_dim": 16}
    names = {"hidden_act": None, "hidden_activation": "gelu_pytorch_tanh", "tie_word_embeddings": True}
    directory = small.write_model(tmp_path / "model", **kind, **names)
    path = directory / "model.safetensors"
    save_file({name: tensor.astype(ml_dtypes.bfloat16) for name, tensor in load_file(path).items()}, path)
    base = open_base(str(directory))
    out, params = export(base, tmp_path, monkeypatch)
    tensor = client.SoftPrompt(out).embed(PROMPT)
    assert tensor.dtype == torch.bfloat16
    ours = our_embeds(base, params, base.tokenizer.prompt_ids(PROMPT + "\n"), jnp.bfloat16)
    np.testing.assert_array_equal(tensor.float().numpy(), ours.astype(np.float32))


def test_a_chat_keeps_the_date_of_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: Any):
    directory = small.write_model(tmp_path / "model", texts=[PROMPT, "2 January 2027"])
    (directory / "chat_template.jinja").write_text(TEMPLATE)
    base = open_base(str(directory)).with_chat_date("2027-01-02")
    out, _ = export(base, tmp_path, monkeypatch, chat=True, chat_date="2027-01-02")
    ids = client.SoftPrompt(out).token_ids(PROMPT)
    assert ids == base.tokenizer.chat(PROMPT + "\n") != base.with_chat_date("2027-01-03").tokenizer.chat(PROMPT + "\n")
    assert base.tokenizer.decode(ids) == f"2 January 2027[{PROMPT}]:"


def test_what_cannot_be_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Another method, a computed date, and a tokenizer that other programs would convert; nothing is written."""
    directory = small.write_model(tmp_path / "model")
    base = open_base(str(directory))
    config = RunConfig(model=str(directory), method="lora", lora=LoRA(2))
    save_run(tmp_path / "lora", config, base, theirs.drawn(LoRA(2), base.config), "en")
    monkeypatch.setattr(
        sys, "argv", ["peft", "export", str(tmp_path / "lora"), str(tmp_path / "out"), "--prompt-embeds"]
    )
    with pytest.raises(InputError, match="method lora is more than embeddings; only soft-prompt can be written"):
        command.main()
    (directory / "chat_template.jinja").write_text("{{ strftime_now(bos_token) }}")
    with pytest.raises(InputError, match="the chat template computes the format of strftime_now"):
        export(open_base(str(directory)), tmp_path / "chat", monkeypatch, chat=True)
    (directory / "tokenizer.json").unlink()
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([PROMPT] * 9), model_writer=model, vocab_size=40, model_type="bpe", minloglevel=2
    )
    (directory / "tokenizer.model").write_bytes(model.getvalue())
    with pytest.raises(InputError, match=r"has no tokenizer\.json, and other programs read its tokenizer differently"):
        export(open_base(str(directory)), tmp_path / "piece", monkeypatch)
    assert not (tmp_path / "out").exists()
    assert [path.name for place in ("chat", "piece") for path in (tmp_path / place).iterdir()] == ["run", "run"]
