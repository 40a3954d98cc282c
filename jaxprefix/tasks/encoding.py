"""Examples to ids: the one place where prompts are fitted to a length, for training and evaluation alike."""

from dataclasses import dataclass, replace

from jaxprefix.tasks.task import Example
from jaxprefix.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Encoded:
    """A prompt's ids, the response's ids (end token included), and whether the context was cut to fit."""

    prompt: list[int]
    response: list[int]
    cut: bool

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.response)


def encode(
    tokenizer: Tokenizer, example: Example, max_length: int, room: int | None = None, chat: bool = False
) -> Encoded | None:
    """The example within `max_length` ids, `room` of them for the answer (None: what the response takes).

    What does not fit is cut from the end of the context, never from the question or the answer; None where even an
    empty context leaves it too long.
    """
    response = tokenizer.response_ids(example.response)
    budget = max_length - (len(response) if room is None else room)
    prompt = prompt_ids(tokenizer, example, chat)
    if len(prompt) <= budget:
        return Encoded(prompt, response, cut=False)
    # The largest number of characters of the context that fits; fewer characters practically never make more tokens.
    fits, over = -1, len(example.context)
    while over - fits > 1:
        middle = (fits + over) // 2
        shorter = prompt_ids(tokenizer, replace(example, context=example.context[:middle]), chat)
        if len(shorter) <= budget:
            fits, prompt = middle, shorter
        else:
            over = middle
    return None if fits < 0 else Encoded(prompt, response, cut=True)


def prompt_ids(tokenizer: Tokenizer, example: Example, chat: bool) -> list[int]:
    """The whole prompt, as plain text or as a user's turn in the model's chat template."""
    return tokenizer.chat(example.prompt) if chat else tokenizer.prompt_ids(example.prompt)
