"""Text to ids and back: a `tokenizer.json` through tokenizers, a lone `tokenizer.model` through sentencepiece itself.

No conversion stands between: on 5,950 XQuAD questions, transformers 5.23's LlamaTokenizer gives other ids than
sentencepiece for 4 with a small BPE `tokenizer.model` trained on them, and for 5,748 with a unigram one. Only the
rendering of chat templates is transformers'.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import sentencepiece
import tokenizers

# These classes start no sequence with a BOS unless told to (SmolLM, some Llama-shaped models), though they declare one.
CLASSES_WITHOUT_BOS = ("GPT2Tokenizer", "GPT2TokenizerFast", "Qwen2Tokenizer", "Qwen2TokenizerFast")
# Llama 3's template writes today's date unless it is given one; training and evaluation must not differ by the day.
CHAT_DATE = "26 Jul 2024"


class Backend(Protocol):
    """What both kinds of tokenizer can do."""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]: ...
    def encode_template(self, text: str) -> list[int]: ...  # rendered chat: special tokens are read as such
    def decode(self, ids: Sequence[int]) -> str: ...
    def id_of(self, token: str) -> int | None: ...
    def token_of(self, index: int) -> str | None: ...
    @property
    def size(self) -> int: ...


@dataclass(frozen=True)
class FastBackend:
    """A `tokenizer.json`. Special tokens written in a text become those tokens, as the library does by default."""

    tokenizer: tokenizers.Tokenizer

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [found.ids for found in self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def encode_template(self, text: str) -> list[int]:
        return self.encode_batch([text])[0]

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)

    def id_of(self, token: str) -> int | None:
        return self.tokenizer.token_to_id(token)

    def token_of(self, index: int) -> str | None:
        return self.tokenizer.id_to_token(index)

    @property
    def size(self) -> int:
        return max(self.tokenizer.get_vocab(with_added_tokens=True).values()) + 1


@dataclass(frozen=True)
class SentencePieceBackend:
    """A `tokenizer.model`. Control tokens (`<s>`, `</s>`) in a text stay text, as the library does by default."""

    processor: sentencepiece.SentencePieceProcessor
    control: re.Pattern[str]  # every control piece, in a group

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return self.processor.encode(list(texts))

    def encode_template(self, text: str) -> list[int]:
        ids: list[int] = []
        for number, part in enumerate(self.control.split(text)):  # text, control, text, control, ..., text
            ids += [self.processor.piece_to_id(part)] if number % 2 else self.processor.encode(part)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return self.processor.decode([index for index in ids if index < self.size])  # a padded head knows more ids

    def id_of(self, token: str) -> int | None:
        index = self.processor.piece_to_id(token)
        return index if self.processor.id_to_piece(index) == token else None  # unknown pieces are given <unk>'s id

    def token_of(self, index: int) -> str | None:
        return self.processor.id_to_piece(index) if 0 <= index < self.size else None

    @property
    def size(self) -> int:
        return self.processor.get_piece_size()


@dataclass(frozen=True)
class Tokenizer:
    """A model's tokenizer with its conventions for the start and the end of a text.

    Special tokens inside a user's text are encoded as the backend's library does by default: with a tokenizer.json
    `</s>` in a text becomes the end token, with a tokenizer.model it stays the four characters.
    """

    backend: Backend
    bos: int | None  # stands once at the start of every prompt; None where the model has none
    eos: tuple[int, ...]  # any of them ends an answer; the first is the one that training learns
    pad: int  # a valid id, nothing more: padding is masked
    chat_template: str | None = None
    special_tokens: tuple[tuple[str, str], ...] = ()  # ("bos_token", "<s>"), ...: what the chat template may name

    @property
    def vocabulary_size(self) -> int:
        """The largest id + 1; a model may have a larger head, never a smaller one."""
        return self.backend.size

    def encode(self, text: str) -> list[int]:
        """The ids of a text, with nothing added at either end."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Iterable[str]) -> list[list[int]]:
        """`encode` of each text. Raises ValueError for half a surrogate pair, which no tokenizer can read."""
        texts = list(texts)
        for text in texts:
            _check_unicode(text)
        return self.backend.encode_batch(texts)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; special tokens, and ids beyond the vocabulary, are left out."""
        return self.backend.decode(ids)

    def prompt_ids(self, text: str) -> list[int]:
        """BOS exactly once where the model has one, also if the text is written with it, then the text."""
        return self._start(self.encode(self._without_bos(text)))

    def response_ids(self, text: str) -> list[int]:
        """The text, without BOS, and the end token. Encoded apart from its prompt, in training and evaluation alike."""
        return [*self.encode(text), self.eos[0]]

    def chat(self, prompt: str, system: str | None = None) -> list[int]:
        """The ids of one user turn in the model's chat template, ready for the answer, BOS as in `prompt_ids`.

        Special tokens are read as such in the whole rendered text, as every chat tokenizer does.

        Raises:
            ValueError: the model has no chat template, or its template refuses the turns (no system prompt, say).
        """
        if self.chat_template is None:
            raise ValueError("--chat: the model has no chat template (tokenizer_config.json, chat_template.jinja)")
        rendered = self._without_bos(_render(self.chat_template, prompt, system, dict(self.special_tokens)))
        _check_unicode(rendered)
        return self._start(self.backend.encode_template(rendered))

    def _without_bos(self, text: str) -> str:
        token = None if self.bos is None else self.backend.token_of(self.bos)
        while token and text.startswith(token):
            text = text.removeprefix(token)
        return text

    def _start(self, ids: list[int]) -> list[int]:
        return ids if self.bos is None else [self.bos, *ids]


def _check_unicode(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"not valid Unicode, half a surrogate pair: {text[: error.end][-40:]!r}") from error


def _render(template: str, prompt: str, system: str | None, special_tokens: dict[str, str]) -> str:
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template  # slow to import; does not import torch

    turns = [{"role": "user", "content": prompt}]
    if system is not None:
        turns.insert(0, {"role": "system", "content": system})
    names: dict[str, Any] = {**special_tokens, "date_string": CHAT_DATE}
    try:
        rendered, _ = render_jinja_template([turns], chat_template=template, add_generation_prompt=True, **names)
    except TemplateError as error:
        raise ValueError(f"--chat: the model's chat template fails: {' '.join(str(error).split())}") from error
    return rendered[0]


def load_tokenizer(directory: Path) -> Tokenizer:
    """The tokenizer of a model directory in Hugging Face layout; tokenizer.json goes before tokenizer.model.

    Raises:
        ValueError: no tokenizer file, an unreadable one, tokens that it lacks, or no end token.
    """
    backend = _backend(directory)
    settings = _settings(directory)
    _check_added_tokens(directory, backend, settings)
    special = {name: text for name in ("bos", "eos", "unk", "pad") if (text := _token_text(settings, f"{name}_token"))}
    if isinstance(backend, SentencePieceBackend):  # its own names serve where no file says otherwise
        own = {"bos": backend.processor.bos_id(), "eos": backend.processor.eos_id(), "unk": backend.processor.unk_id()}
        special = {name: backend.processor.id_to_piece(index) for name, index in own.items() if index >= 0} | special
    ids = {name: backend.id_of(text) for name, text in special.items()}
    if missing := [f"{name}_token {special[name]}" for name in ("bos", "eos") if name in ids and ids[name] is None]:
        raise ValueError(f"{directory}: tokenizer_config.json names {', '.join(missing)}, which the vocabulary lacks")
    eos = _eos(directory, backend, ids.get("eos"))
    return Tokenizer(
        backend=backend,
        bos=_bos(directory, backend, settings, ids.get("bos")),
        eos=eos,
        pad=next(index for index in (ids.get("pad"), eos[0]) if index is not None),
        chat_template=_chat_template(directory, settings),
        special_tokens=tuple((f"{name}_token", text) for name, text in special.items()),
    )


def _backend(directory: Path) -> Backend:
    fast, piece = directory / "tokenizer.json", directory / "tokenizer.model"
    if fast.is_file():
        try:
            tokenizer = tokenizers.Tokenizer.from_file(str(fast))
        except Exception as error:  # the library raises nothing more precise
            raise ValueError(f"{fast} cannot be read: {' '.join(str(error).split())}") from error
        tokenizer.no_truncation()  # a saved length limit or padding is not a property of the text
        tokenizer.no_padding()
        return FastBackend(tokenizer)
    if piece.is_file():
        try:
            processor = sentencepiece.SentencePieceProcessor(model_file=str(piece))
        except (RuntimeError, OSError) as error:
            raise ValueError(f"{piece} is not a sentencepiece model; give the model's tokenizer.json") from error
        pieces = range(processor.get_piece_size())
        control = [re.escape(processor.id_to_piece(index)) for index in pieces if processor.is_control(index)]
        return SentencePieceBackend(processor, re.compile(f"({'|'.join(control) or '(?!)'})"))
    raise ValueError(f"{directory} holds no tokenizer: neither tokenizer.json nor tokenizer.model")


def _read(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is no such file."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} is not a JSON object")
    return found


def _settings(directory: Path) -> dict[str, Any]:
    return _read(directory / "special_tokens_map.json") | _read(directory / "tokenizer_config.json")


def _token_text(settings: Mapping[str, Any], name: str) -> str | None:
    token = settings.get(name)
    return token.get("content") if isinstance(token, dict) else token


def _check_added_tokens(directory: Path, backend: Backend, settings: Mapping[str, Any]) -> None:
    """Refuse tokens that stand beside the vocabulary: encoded as plain text they would be silently wrong."""
    beside = [token["content"] for token in (settings.get("added_tokens_decoder") or {}).values()]
    beside += _read(directory / "added_tokens.json")
    if lacking := [token for token in dict.fromkeys(beside) if backend.id_of(token) is None]:
        raise ValueError(
            f"{directory}: added tokens that the tokenizer file itself lacks: {', '.join(lacking[:5])}; "
            "save it with transformers as a tokenizer.json that holds them"
        )


def _bos(directory: Path, backend: Backend, settings: Mapping[str, Any], declared: int | None) -> int | None:
    """The BOS that prompts start with, as settings, post-processor and class have it; else simply the one declared."""
    index = declared
    if "bos_token" not in settings and index is None:  # a written null means that there is none
        index = _read(directory / "config.json").get("bos_token_id")
    if index is None or backend.token_of(index) is None or settings.get("add_bos_token") is False:
        return None
    adds = isinstance(backend, FastBackend) and backend.tokenizer.encode("").ids[:1] == [index]
    if not settings.get("add_bos_token") and not adds and settings.get("tokenizer_class") in CLASSES_WITHOUT_BOS:
        return None
    return index


def _eos(directory: Path, backend: Backend, own: int | None) -> tuple[int, ...]:
    """generation_config.json, else config.json, else the tokenizer's own; its own first where it is one of them.

    Llama 3 Instruct lists <|end_of_text|> before <|eot_id|>, which ends its turns and is its tokenizer's `eos_token`.
    """
    found = None
    for name in ("generation_config.json", "config.json"):
        found = _read(directory / name).get("eos_token_id") if found is None else found
    found = own if found is None else found
    listed = [found] if isinstance(found, int) else list(found or ())
    if not listed:
        raise ValueError(f"{directory}: no end token; set eos_token_id in generation_config.json")
    if wrong := [index for index in listed if not isinstance(index, int) or backend.token_of(index) is None]:
        raise ValueError(f"{directory}: eos_token_id {wrong[0]} is not an id of the tokenizer (0..{backend.size - 1})")
    return tuple(sorted(listed, key=lambda index: index != own))


def _chat_template(directory: Path, settings: Mapping[str, Any]) -> str | None:
    if (path := directory / "chat_template.jinja").is_file():
        return path.read_text(encoding="utf-8")
    template = settings.get("chat_template")
    if isinstance(template, list):  # several, by name
        return next((each["template"] for each in template if each["name"] == "default"), None)
    return template
