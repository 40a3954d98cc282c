"""Settings in the files beside a tokenizer: special tokens, start and end of texts, and the chat template."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jaxprefix.errors import InputError
from jaxprefix.io.messages import short_repr, truncate
from jaxprefix.io.strict_json import read_object
from jaxprefix.io.values import value_of
from jaxprefix.text.backends import Backend, FastBackend
from jaxprefix.text.chat_template import LONGEST_TEMPLATE

FILES = "tokenizer_config.json, special_tokens_map.json"


def read(directory: Path) -> dict[str, Any]:
    """The settings of both files, with the precedence of transformers.

    special_tokens_map.json changes the settings of older tokenizer_config.json files only: those that do not list their
    added tokens.
    """
    settings, older = _object(directory / "tokenizer_config.json"), _object(directory / "special_tokens_map.json")
    return older | settings if "added_tokens_decoder" in settings else settings | older


def token_text(directory: Path, settings: Mapping[str, Any], name: str) -> str | None:
    """A special token. The files have its text, or an object with the text as `content`."""
    token = settings.get(name)
    text = token.get("content") if isinstance(token, dict) else token
    if not isinstance(text, str) and token is not None:
        raise InputError(
            f"{directory}: {name} is {short_repr(token)} ({FILES}); expected a text, or an object with content"
        )
    return text


def added_tokens(directory: Path, settings: Mapping[str, Any]) -> dict[int, str]:
    """The added tokens that the settings list, by id."""
    decoder = value_of(settings, "added_tokens_decoder", dict | None, f"{directory} ({FILES}): ") or {}
    for index, token in decoder.items():
        if not isinstance(token, dict) or not isinstance(token.get("content"), str):
            raise InputError(
                f"{directory}: added_tokens_decoder has {short_repr(token)} ({FILES}); expected objects with content"
            )
        if not re.fullmatch("[0-9]{1,9}", index):
            raise InputError(
                f"{directory}: added_tokens_decoder has the key {short_repr(index)} ({FILES}); expected ids"
            )
    return {int(index): token["content"] for index, token in decoder.items()}


def check_added_tokens(directory: Path, backend: Backend, added: Iterable[str]) -> None:
    """InputError for added tokens that the tokenizer file lacks: it would encode them as plain text."""
    added = [*added, *_object(directory / "added_tokens.json")]
    if missing := [truncate(token, 40) for token in dict.fromkeys(added) if backend.id_of(token) is None]:
        raise InputError(
            f"{directory}: the tokenizer file lacks the added tokens {', '.join(missing[:5])}; "
            "save it with transformers as a tokenizer.json that has them"
        )


def adds_bos(directory: Path, settings: Mapping[str, Any]) -> bool:
    """Whether a tokenizer file without a post-processor puts BOS before each text, as LlamaTokenizer documents it."""
    return value_of(settings, "add_bos_token", bool | None, f"{directory} ({FILES}): ") is not False


def bos(directory: Path, backend: Backend, settings: Mapping[str, Any], declared: int | None) -> int | None:
    """The BOS at the start of prompts, or None.

    The post-processor of a tokenizer.json decides, as in transformers, whatever the settings say. Other files have
    none: the declared BOS is added unless `add_bos_token` is false. The bos_token_id of a config.json is not a source.
    """
    if isinstance(backend, FastBackend):
        return backend.start
    return declared if adds_bos(directory, settings) else None


def eos(directory: Path, backend: Backend, declared: int | None) -> tuple[int, ...]:
    """The end tokens: the one that the tokenizer declares, then those in generation_config.json, else config.json.

    Each of them ends an answer, and training teaches the first. They differ in real models: Llama 3 Instruct lists
    <|end_of_text|> before <|eot_id|>, which ends its turns and is the `eos_token` of its tokenizer.
    """
    value: Any = None
    for name in ("generation_config.json", "config.json"):
        value = _object(directory / name).get("eos_token_id") if value is None else value
    listed = [] if value is None else value if isinstance(value, list) else [value]
    if wrong := [index for index in listed if type(index) is not int or backend.token_of(index) is None]:
        raise InputError(
            f"{directory}: eos_token_id {short_repr(wrong[0])} is not an id of the tokenizer (0..{backend.size - 1})"
        )
    ends = tuple(dict.fromkeys(listed if declared is None else [declared, *listed]))
    if not ends:
        raise InputError(f"{directory}: no end token; set eos_token_id in generation_config.json")
    return ends


def chat_templates(directory: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    """The chat templates by name, from chat_template.jinja, the settings or chat_template.json.

    A single one is named "default".
    """
    path, source = directory / "chat_template.jinja", directory / "tokenizer_config.json"
    templates = settings.get("chat_template")
    if path.is_file():
        source, templates = path, _text(path)
    elif templates is None:  # models that also read images have it in a file of its own
        source = directory / "chat_template.json"
        templates = _object(source).get("chat_template")
    if not isinstance(templates, list):
        templates = [] if templates is None else [{"name": "default", "template": templates}]
    if not all(isinstance(entry, dict) and {"name", "template"} <= entry.keys() for entry in templates):
        raise InputError(f"{source}: chat_template is {short_repr(templates)}; expected objects with name and template")
    for entry in templates:
        if not isinstance(entry["name"], str) or not isinstance(entry["template"], str):
            raise InputError(f"{source}: chat_template is {short_repr(entry['template'])}; expected a text")
        if len(entry["template"]) > LONGEST_TEMPLATE:
            size = len(entry["template"])
            raise InputError(f"{source}: the chat template has {size} characters; expected at most {LONGEST_TEMPLATE}")
    return {entry["name"]: entry["template"] for entry in templates}


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > 4 * LONGEST_TEMPLATE:
            raise InputError(f"{path} has {path.stat().st_size} bytes; expected a chat template")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text in UTF-8: {error}") from None


def _object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if there is no such file."""
    return read_object(path) if path.is_file() else {}
