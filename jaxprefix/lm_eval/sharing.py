"""Groups continuations by prompt, so that each prompt runs once for all of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxprefix.errors import InputError
from jaxprefix.inference.batching import Request

MAX_CHOICES = 8  # continuations per request; programs are compiled for 1, 2, 4 or 8


@dataclass(frozen=True)
class PromptGroup:
    """A prompt with several continuations."""

    request: Request
    pair_indices: tuple[tuple[int, ...], ...]  # per continuation, the pairs that have it


def group_by_prompt(pairs: Sequence[tuple[list[int], list[int]]]) -> list[PromptGroup]:
    """Groups (prompt, continuation) pairs; equal pairs are scored once.

    A prompt that is shorter than its longest continuation is repeated for each: reading it again costs less than idle
    rows in the batch (XNLI's prompt is BOS alone, and all rows of the task share it).
    """
    prompts: dict[tuple[int, ...], dict[tuple[int, ...], list[int]]] = {}
    for index, (prompt, continuation) in enumerate(pairs):
        prompts.setdefault(tuple(prompt), {}).setdefault(tuple(continuation), []).append(index)
    groups = []
    for prompt, continuations in prompts.items():
        ordered = sorted(continuations, key=len)
        size = MAX_CHOICES if len(prompt) >= len(ordered[-1]) else 1
        for start in range(0, len(ordered), size):
            choices = ordered[start : start + size]
            indices = tuple(tuple(continuations[choice]) for choice in choices)
            groups.append(PromptGroup(Request(list(prompt), tuple(map(list, _padded(choices)))), indices))
    return groups


def _padded(choices: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Repeats the last choice up to a power of two; nobody reads the scores of the copies."""
    count = 1 << (len(choices) - 1).bit_length()
    return choices + choices[-1:] * (count - len(choices))


def fit(context: list[int], continuation: list[int], max_length: int) -> tuple[list[int], list[int]]:
    """The pair, with the context cut from the left so that a model of `max_length` positions can read it.

    The last token of the continuation is only predicted, never read. At least one token of the context is kept.

    Raises:
        InputError: if the continuation is empty or longer than `max_length`.
    """
    if not continuation:
        raise InputError("a continuation of the task has no tokens; expected some text in every choice")
    if len(continuation) > max_length:
        raise InputError(f"a continuation has {len(continuation):,} tokens, the model reads {max_length:,}; shorten it")
    return context[len(continuation) - max_length - 1 :], continuation
