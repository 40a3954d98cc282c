"""Export of a soft prompt for servers that take embeddings in place of a prompt, such as vLLM's `prompt_embeds`.

A client looks the tokens of a prompt up in `embed_tokens`, puts `soft_prompt` before them, and sends the result. Both
are in the dtype of the base on disk, and the embedding has the base's factor (Gemma's √D), so they are the input of the
first layer.
"""

import json
import re
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from jaxprefix.errors import InputError
from jaxprefix.models import weights
from jaxprefix.models.adapters import SoftPrompt
from jaxprefix.models.parameters import EMBEDDING
from jaxprefix.runs.saved import TrainedRun
from jaxprefix.text.backends import FastBackend
from jaxprefix.text.chat_template import CLOCK
from jaxprefix.text.tokenizer import Tokenizer

TENSORS, SETTINGS = "prompt_embeds.safetensors", "prompt_embeds.json"


def check(saved: TrainedRun) -> None:
    """InputError if the run is not a soft prompt, or its base has no tokenizer that a client can read as it is."""
    if not isinstance(saved.config.adapter, SoftPrompt):
        raise InputError(
            f"--prompt-embeds: method {saved.config.method} is more than embeddings; only soft-prompt can be written"
        )
    if not isinstance(saved.base.tokenizer.backend, FastBackend):
        raise InputError(
            f"--prompt-embeds: {saved.base.directory} has no tokenizer.json, and other programs read its tokenizer "
            "differently; train on a base with a tokenizer.json"
        )


def write(saved: TrainedRun, base_name: str, directory: Path) -> None:
    """Writes the tensors, the settings of a request, and the tokenizer into `directory`."""
    base = saved.base
    with weights.opened(base.directory, base.config) as tensors:
        embedding = tensors[EMBEDDING][:]
    soft_prompt = np.asarray(saved.params["prompt"]).astype(embedding.dtype)
    if base.config.embedding_scale != 1:
        scale = np.asarray(base.config.embedding_scale, embedding.dtype)
        soft_prompt, embedding = soft_prompt * scale, embedding * scale
    save_file({"soft_prompt": soft_prompt, "embed_tokens": embedding}, directory / TENSORS, metadata={"format": "pt"})
    settings = {
        "base_model_name_or_path": base_name,
        "chat": saved.config.chat,
        "bos_token_ids": [] if base.tokenizer.bos is None else [base.tokenizer.bos],  # before a prompt without chat
        "stop_token_ids": list(base.tokenizer.eos),
    }
    (directory / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    _write_tokenizer(base.tokenizer, saved.config.chat, directory)


def _write_tokenizer(tokenizer: Tokenizer, chat: bool, directory: Path) -> None:
    """Writes the tokenizer for transformers' PreTrainedTokenizerFast, with the chat template if the run uses it."""
    assert isinstance(tokenizer.backend, FastBackend)
    tokenizer.backend.tokenizer.save(str(directory / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **dict(tokenizer.special_tokens)}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings, ensure_ascii=False), encoding="utf-8")
    if chat:
        (directory / "chat_template.jinja").write_text(_dated(tokenizer), encoding="utf-8")


def _dated(tokenizer: Tokenizer) -> str:
    """The chat template with the date of the run in place of calls for the current date."""

    def text(call: re.Match[str]) -> str:
        return json.dumps(tokenizer.chat_date.strftime(call[2]), ensure_ascii=False)

    template = re.sub(rf"{CLOCK}\(\s*(['\"])(.*?)\1\s*\)", text, tokenizer.require_template())
    if re.search(rf"{CLOCK}\s*\(", template):
        raise InputError(f"--prompt-embeds: the chat template computes the format of {CLOCK}; write it out there")
    return template
