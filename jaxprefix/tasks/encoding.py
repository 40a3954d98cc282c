"""Encodes examples. Training and evaluation both shorten prompts to a maximum length here."""

from dataclasses import dataclass, replace

from jaxprefix.tasks.task import Example
from jaxprefix.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Encoded:
    """The ids of a prompt and of its response (with the end token), and whether the context was cut to fit."""

    prompt: list[int]
    response: list[int]
    cut: bool

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.response)


def encode(
    tokenizer: Tokenizer, example: Example, max_length: int, room: int | None = None, chat: bool = False
) -> Encoded | None:
    """The example in at most `max_length` ids. `room` ids are kept for the answer (None: the length of the response).

    Only the end of the context is cut, never the question or the answer. None if an empty context is still too long.
    """
    response = tokenizer.response_ids(example.response)
    budget = max_length - (len(response) if room is None else room)
    prompt = prompt_ids(tokenizer, example, chat)
    if len(prompt) <= budget:
        return Encoded(prompt, response, cut=False)
    # Bisects the number of characters that fit: a shorter text practically never has more tokens.
    fits, too_long = -1, len(example.context)
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        shorter = prompt_ids(tokenizer, replace(example, context=example.context[:middle]), chat)
        if len(shorter) <= budget:
            fits, prompt = middle, shorter
        else:
            too_long = middle
    return None if fits < 0 else Encoded(prompt, response, cut=True)


def prompt_ids(tokenizer: Tokenizer, example: Example, chat: bool) -> list[int]:
    """The ids of the whole prompt, as plain text or as a user turn in the chat template of the model."""
    return tokenizer.chat(example.prompt) if chat else tokenizer.prompt_ids(example.prompt)
