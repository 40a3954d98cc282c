"""Text to ids and back, with a model's conventions for the start and the end of a text, and its chat template."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxprefix.errors import InputError
from jaxprefix.io.messages import truncate
from jaxprefix.io.strict_json import check_unicode
from jaxprefix.text import chat_template, special_tokens
from jaxprefix.text.backends import Backend, SentencePieceBackend, open_backend


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
        """`encode` of each text. Raises InputError for half a surrogate pair, which no tokenizer can read."""
        texts = list(texts)
        for text in texts:
            check_unicode(text)
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

    def chat(self, prompt: str) -> list[int]:
        """The ids of one user turn in the model's chat template, ready for the answer, BOS as in `prompt_ids`.

        Special tokens are read as such in the whole rendered text, as every chat tokenizer does.

        Raises:
            InputError: the model has no chat template, or its template refuses the turn.
        """
        if self.chat_template is None:
            raise InputError("--chat: the model has no chat template (tokenizer_config.json, chat_template.jinja)")
        turns = [{"role": "user", "content": prompt}]
        try:
            rendered = chat_template.render(
                self.chat_template, turns, dict(self.special_tokens), add_generation_prompt=True
            )
        except InputError as error:
            raise InputError(f"--chat: {error}") from None
        return self._start(self.backend.encode_template(self._without_bos(rendered)))

    def _without_bos(self, text: str) -> str:
        token = None if self.bos is None else self.backend.token_of(self.bos)
        while token and text.startswith(token):
            text = text.removeprefix(token)
        return text

    def _start(self, ids: list[int]) -> list[int]:
        return ids if self.bos is None else [self.bos, *ids]


def load_tokenizer(directory: Path) -> Tokenizer:
    """The tokenizer of a model directory in Hugging Face layout; tokenizer.json goes before tokenizer.model.

    Raises:
        InputError: no tokenizer file, an unreadable one, tokens that it lacks, or no end token.
    """
    backend = open_backend(directory)
    settings = special_tokens.read(directory)
    special_tokens.check_added_tokens(directory, backend, settings)
    special = {
        name: text
        for name in ("bos", "eos", "unk", "pad")
        if (text := special_tokens.token_text(directory, settings, f"{name}_token"))
    }
    if isinstance(backend, SentencePieceBackend):  # its own names serve where no file says otherwise
        own = {"bos": backend.processor.bos_id(), "eos": backend.processor.eos_id(), "unk": backend.processor.unk_id()}
        special = {name: backend.processor.id_to_piece(index) for name, index in own.items() if index >= 0} | special
    ids = {name: backend.id_of(text) for name, text in special.items()}
    if missing := [
        f"{name}_token {truncate(special[name])}" for name in ("bos", "eos") if name in ids and ids[name] is None
    ]:
        raise InputError(f"{directory}: tokenizer_config.json names {', '.join(missing)}, which the vocabulary lacks")
    eos = special_tokens.eos(directory, backend, ids.get("eos"))
    return Tokenizer(
        backend=backend,
        bos=special_tokens.bos(directory, backend, settings, ids.get("bos")),
        eos=eos,
        pad=next(index for index in (ids.get("pad"), eos[0]) if index is not None),
        chat_template=special_tokens.chat_template(directory, settings),
        special_tokens=tuple((f"{name}_token", text) for name, text in special.items()),
    )
