"""Sends a prompt with a soft prompt to vLLM: python vllm_client.py EXPORTED "PROMPT" [--url URL] [--model NAME]

EXPORTED is what `python -m jaxprefix.peft export RUN EXPORTED --prompt-embeds` wrote. This script needs torch,
transformers and safetensors, but not jaxprefix. Start the server with

    vllm serve BASE --enable-prompt-embeds
"""

import argparse
import base64
import io
import json
from pathlib import Path
from urllib.request import Request, urlopen

import torch
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerFast


class SoftPrompt:
    """A soft prompt with the embedding and the tokenizer of its base."""

    def __init__(self, directory: Path):
        self.settings = json.loads((directory / "prompt_embeds.json").read_text(encoding="utf-8"))
        self.tensors = load_file(directory / "prompt_embeds.safetensors")
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(directory)

    def token_ids(self, prompt: str) -> list[int]:
        """The prompt as in training: one newline ends it, after BOS or in the chat template of the base."""
        prompt = prompt.removesuffix("\n") + "\n"
        if self.settings["chat"]:
            turns = [{"role": "user", "content": prompt}]
            return self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
        return self.settings["bos_token_ids"] + self.tokenizer.encode(prompt, add_special_tokens=False)

    def embed(self, prompt: str) -> torch.Tensor:
        """[soft prompt; token embeddings of the prompt], one row per position."""
        return torch.cat([self.tensors["soft_prompt"], self.tensors["embed_tokens"][self.token_ids(prompt)]])

    def request(self, prompt: str, model: str | None = None, max_tokens: int = 64) -> dict:
        """The body of a request to the completions API."""
        file = io.BytesIO()
        torch.save(self.embed(prompt), file)
        return {
            "model": model or self.settings["base_model_name_or_path"],
            "prompt": "",
            "prompt_embeds": base64.b64encode(file.getvalue()).decode(),
            "stop_token_ids": self.settings["stop_token_ids"],
            "max_tokens": max_tokens,
            "temperature": 0,
        }


def complete(url: str, body: dict) -> str:
    """The text of the server's answer."""
    headers = {"Content-Type": "application/json"}
    with urlopen(Request(f"{url}/completions", json.dumps(body).encode(), headers)) as response:
        return json.load(response)["choices"][0]["text"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0])
    parser.add_argument("exported", type=Path)
    parser.add_argument("prompt")
    parser.add_argument("--url", default="http://localhost:8000/v1")
    parser.add_argument("--model", help="the name under which vLLM serves the base; by default that of the export")
    arguments = parser.parse_args()
    print(complete(arguments.url, SoftPrompt(arguments.exported).request(arguments.prompt, arguments.model)))


if __name__ == "__main__":
    main()
