"""What the small files beside a tokenizer say of it: special tokens, where texts start and end, the chat template."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxprefix.errors import InputError
from jaxprefix.io.messages import short_repr, truncate
from jaxprefix.io.strict_json import read_object
from jaxprefix.io.values import value_of
from jaxprefix.text.backends import Backend, FastBackend
from jaxprefix.text.chat_template import LONGEST_TEMPLATE

# These classes start no sequence with a BOS unless told to (SmolLM, some Llama-shaped models), though they declare one.
CLASSES_WITHOUT_BOS = ("GPT2Tokenizer", "GPT2TokenizerFast", "Qwen2Tokenizer", "Qwen2TokenizerFast")
FILES = "tokenizer_config.json, special_tokens_map.json"


def read(directory: Path) -> dict[str, Any]:
    """The settings of both files; tokenizer_config.json goes before special_tokens_map.json."""
    return _object(directory / "special_tokens_map.json") | _object(directory / "tokenizer_config.json")


def token_text(directory: Path, settings: Mapping[str, Any], name: str) -> str | None:
    """A special token, which is written as a text or as an object with its content."""
    token = settings.get(name)
    text = token.get("content") if isinstance(token, dict) else token
    if not isinstance(text, str) and token is not None:
        raise InputError(f"{directory}: {name} is {short_repr(token)} ({FILES}); expected a text, or its content")
    return text


def check_added_tokens(directory: Path, backend: Backend, settings: Mapping[str, Any]) -> None:
    """Refuse tokens that stand beside the vocabulary: encoded as plain text they would be silently wrong."""
    decoder = value_of(settings, "added_tokens_decoder", dict | None, f"{directory} ({FILES}): ") or {}
    beside: list[str] = []
    for token in decoder.values():
        content = token.get("content") if isinstance(token, dict) else None
        if not isinstance(content, str):
            raise InputError(
                f"{directory}: added_tokens_decoder has {short_repr(token)} ({FILES}); expected objects with content"
            )
        beside.append(content)
    beside += _object(directory / "added_tokens.json")
    if lacking := [truncate(token, 40) for token in dict.fromkeys(beside) if backend.id_of(token) is None]:
        raise InputError(
            f"{directory}: added tokens that the tokenizer file itself lacks: {', '.join(lacking[:5])}; "
            "save it with transformers as a tokenizer.json that holds them"
        )


def bos(directory: Path, backend: Backend, settings: Mapping[str, Any], declared: int | None) -> int | None:
    """The BOS that prompts start with, as settings, post-processor and class have it; else simply the one declared."""
    index, adding = declared, value_of(settings, "add_bos_token", bool | None, f"{directory} ({FILES}): ")
    if "bos_token" not in settings and index is None:  # a written null means that there is none
        path = directory / "config.json"
        index = value_of(_object(path), "bos_token_id", int | None, f"{path}: ")
    if index is None or backend.token_of(index) is None or adding is False:
        return None
    adds = isinstance(backend, FastBackend) and backend.encode_start() == [index]
    if not adding and not adds and settings.get("tokenizer_class") in CLASSES_WITHOUT_BOS:
        return None
    return index


def eos(directory: Path, backend: Backend, own: int | None) -> tuple[int, ...]:
    """generation_config.json, else config.json, else the tokenizer's own; its own first where it is one of them.

    Llama 3 Instruct lists <|end_of_text|> before <|eot_id|>, which ends its turns and is its tokenizer's `eos_token`.
    """
    found: Any = None
    for name in ("generation_config.json", "config.json"):
        found = _object(directory / name).get("eos_token_id") if found is None else found
    found = own if found is None else found
    listed = [] if found is None else found if isinstance(found, list) else [found]
    if not listed:
        raise InputError(f"{directory}: no end token; set eos_token_id in generation_config.json")
    if wrong := [index for index in listed if type(index) is not int or backend.token_of(index) is None]:
        raise InputError(
            f"{directory}: eos_token_id {short_repr(wrong[0])} is not an id of the tokenizer (0..{backend.size - 1})"
        )
    return tuple(sorted(dict.fromkeys(listed), key=lambda index: index != own))


def chat_template(directory: Path, settings: Mapping[str, Any]) -> str | None:
    """The default chat template, from its own file or from the settings."""
    path, where = directory / "chat_template.jinja", directory / "tokenizer_config.json"
    template = settings.get("chat_template")
    if path.is_file():
        where, template = path, _text(path)
    elif isinstance(template, list):  # several, by name
        if not all(isinstance(each, dict) and {"name", "template"} <= each.keys() for each in template):
            raise InputError(f"{where}: chat_template is {short_repr(template)}; expected objects of name and template")
        template = next((each["template"] for each in template if each["name"] == "default"), None)
    if not isinstance(template, str | None):
        raise InputError(f"{where}: chat_template is {short_repr(template)}; expected a text")
    if template and len(template) > LONGEST_TEMPLATE:
        raise InputError(
            f"{where}: the chat template has {len(template)} characters; expected at most {LONGEST_TEMPLATE}"
        )
    return template


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
    """The object in a JSON file; empty where there is no such file."""
    return read_object(path) if path.is_file() else {}
