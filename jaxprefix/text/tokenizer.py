"""Encodes and decodes text with the conventions of a model: start and end tokens, and the chat template."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import cycle
from pathlib import Path

from jaxprefix.errors import InputError
from jaxprefix.io.messages import truncate
from jaxprefix.io.strict_json import check_unicode
from jaxprefix.text import chat_template, special_tokens
from jaxprefix.text.backends import Backend, open_backend
from jaxprefix.text.chat_template import DEFAULT_DATE, Turn


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer with the conventions of its model for the start and the end of a text.

    Special tokens in a text follow the default of the library: with a tokenizer.json, `</s>` is encoded as the end
    token; with a tokenizer.model, it is encoded as four characters.
    """

    backend: Backend
    bos: int | None  # starts every prompt; None if the model has none
    eos: tuple[int, ...]  # each of them ends an answer; training uses the first
    pad: int  # any valid id: padding is masked
    chat_template: str | None = None  # the default one
    other_templates: tuple[str, ...] = ()  # the names of those that are not used
    chat_date: date = DEFAULT_DATE  # the current date in the chat template
    special_tokens: tuple[tuple[str, str], ...] = ()  # ("bos_token", "<s>"), ..., for the chat template

    @property
    def vocabulary_size(self) -> int:
        """The largest id + 1. The head of a model may be larger but not smaller."""
        return self.backend.size

    def encode(self, text: str) -> list[int]:
        """The ids of a text without start and end tokens."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Iterable[str]) -> list[list[int]]:
        """`encode` for several texts. InputError for half a surrogate pair, which tokenizers cannot read."""
        texts = list(texts)
        for text in texts:
            check_unicode(text)
        return self.backend.encode_batch(texts)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, without special tokens and ids beyond the vocabulary."""
        return self.backend.decode(ids)

    def prompt_ids(self, text: str) -> list[int]:
        """The text, with exactly one BOS in front if the model has one, even if the text already contains it."""
        ids = self.encode(self._without_bos(text))
        return ids if self.bos is None else [self.bos, *ids]

    def response_ids(self, text: str) -> list[int]:
        """The text and the end token, without BOS. Responses are always encoded separately from their prompts."""
        return [*self.encode(text), self.eos[0]]

    def require_template(self) -> str:
        """The chat template. InputError if the model has none, or has several and no default."""
        if self.chat_template is not None:
            return self.chat_template
        if self.other_templates:
            names = ", ".join(truncate(name, 40) for name in self.other_templates)
            raise InputError(
                f"the model has no default chat template but {names}; save the one to use as chat_template.jinja "
                "in the model's directory"
            )
        raise InputError("the model has no chat template (tokenizer_config.json, chat_template.jinja)")

    @property
    def tells_date(self) -> bool:
        """Whether the chat template asks for the current date."""
        return chat_template.CLOCK in (self.chat_template or "")

    def render(self, turns: Sequence[Turn], **flags: bool) -> str:
        """The text of a conversation. InputError if the model has no chat template, or the template rejects it."""
        names = dict(self.special_tokens)
        return chat_template.render(self.require_template(), turns, names, self.chat_date, **flags)

    def chat(self, prompt: str, earlier: Sequence[tuple[str, str]] = ()) -> list[int]:
        """The ids of a user turn in the chat template, up to the answer, after earlier turns (prompt, answer).

        Special tokens in the rendered text are encoded as such. BOS is there if the template writes it, as in
        transformers.

        Raises:
            InputError: the model has no chat template, or the template rejects the turns.
        """
        texts = [text for pair in earlier for text in pair] + [prompt]
        turns = [{"role": role, "content": text} for role, text in zip(cycle(("user", "assistant")), texts)]
        try:
            rendered = self.render(turns, add_generation_prompt=True)
        except InputError as error:
            raise InputError(f"--chat: {error}") from None
        return self.backend.encode_template(rendered)

    def _without_bos(self, text: str) -> str:
        token = None if self.bos is None else self.backend.token_of(self.bos)
        while token and text.startswith(token):
            text = text.removeprefix(token)
        return text


def load_tokenizer(directory: Path) -> Tokenizer:
    """The tokenizer of a model directory in Hugging Face layout.

    Raises:
        InputError: the tokenizer file is missing or unreadable or lacks a special token, or there is no end token.
    """
    settings = special_tokens.read(directory)
    special = {
        name: text
        for name in ("bos", "eos", "unk", "pad")
        if (text := special_tokens.token_text(directory, settings, f"{name}_token"))
    }
    added = special_tokens.added_tokens(directory, settings)
    bos = special.get("bos") if special_tokens.adds_bos(directory, settings) else None
    backend = open_backend(directory, added, bos)
    special_tokens.check_added_tokens(directory, backend, added.values())
    special = backend.declared | special
    ids = {name: backend.id_of(text) for name, text in special.items()}
    if missing := [
        f"{name}_token {truncate(special[name])}" for name in ("bos", "eos") if name in ids and ids[name] is None
    ]:
        raise InputError(f"{directory}: tokenizer_config.json names {', '.join(missing)}, which the vocabulary lacks")
    eos = special_tokens.eos(directory, backend, ids.get("eos"))
    templates = special_tokens.chat_templates(directory, settings)
    return Tokenizer(
        backend=backend,
        bos=special_tokens.bos(directory, backend, settings, ids.get("bos")),
        eos=eos,
        pad=next(index for index in (ids.get("pad"), eos[0]) if index is not None),
        chat_template=templates.pop("default", None),
        other_templates=tuple(templates),
        special_tokens=tuple((f"{name}_token", text) for name, text in special.items()),
    )
