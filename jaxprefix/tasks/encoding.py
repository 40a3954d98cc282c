"""Encodes examples. Training and evaluation both shorten prompts to a maximum length here."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from jaxprefix.tasks.task import Example
from jaxprefix.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Encoded:
    """The ids of a prompt and of its response (with the end token), and whether the context was cut to fit."""

    prompt: list[int]
    response: list[int]
    cut: bool
    shots: int = 0  # few-shot examples in the prompt

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


def encode_few_shot(
    tokenizer: Tokenizer, shots: Sequence[Example], example: Example, max_length: int, room: int, chat: bool = False
) -> Encoded | None:
    """The whole example after as many of the first shots as fit in `max_length` ids, with `room` ids for the answer.

    None if it does not fit after one of them: `encode` may cut its context instead.
    """
    for count in range(len(shots), 0, -1):
        prompt = prompt_ids(tokenizer, example, chat, shots[:count])
        if len(prompt) + room <= max_length:
            return Encoded(prompt, tokenizer.response_ids(example.response), cut=False, shots=count)
    return None


def prompt_ids(tokenizer: Tokenizer, example: Example, chat: bool, shots: Sequence[Example] = ()) -> list[int]:
    """The ids of the whole prompt, after few-shot examples, as plain text or in the chat template of the model.

    As text, a blank line follows each shot; in the template, the shots are earlier turns. lm-evaluation-harness does
    the same.
    """
    if chat:
        return tokenizer.chat(example.prompt, [(shot.prompt, shot.response) for shot in shots])
    return tokenizer.prompt_ids("".join(f"{shot.prompt}{shot.response}\n\n" for shot in shots) + example.prompt)
