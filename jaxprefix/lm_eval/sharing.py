"""Which continuations are scored together: those of one prompt, so that it is run once for all of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxprefix.errors import InputError
from jaxprefix.inference.batching import Request

TOGETHER = 8  # continuations at most: what is compiled is for 1, 2, 4 or 8 of them


@dataclass(frozen=True)
class Shared:
    """A prompt with continuations, and of each of them the places of the requests that it answers."""

    asked: Request
    places: tuple[tuple[int, ...], ...]


def share(pairs: Sequence[tuple[list[int], list[int]]]) -> list[Shared]:
    """(prompt, continuation) of every request -> what is asked, each different pair once.

    A prompt that is shorter than its continuations is repeated for each: to read it again costs less than rows of the
    batch that have nothing to do (XNLI's prompt is BOS alone, and every row of the task shares it).
    """
    prompts: dict[tuple[int, ...], dict[tuple[int, ...], list[int]]] = {}
    for place, (prompt, continuation) in enumerate(pairs):
        prompts.setdefault(tuple(prompt), {}).setdefault(tuple(continuation), []).append(place)
    found = []
    for prompt, continuations in prompts.items():
        ordered = sorted(continuations, key=len)
        step = TOGETHER if len(prompt) >= len(ordered[-1]) else 1
        for start in range(0, len(ordered), step):
            together = ordered[start : start + step]
            places = tuple(tuple(continuations[each]) for each in together)
            found.append(Shared(Request(list(prompt), tuple(map(list, _rounded(together)))), places))
    return found


def _rounded(choices: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Filled up to a power of two with the last one, whose scores are then not read."""
    count = 1 << (len(choices) - 1).bit_length()
    return choices + choices[-1:] * (count - len(choices))


def fit(context: list[int], continuation: list[int], longest: int) -> tuple[list[int], list[int]]:
    """The pair with as much of the context's end as a model of `longest` positions can read.

    The last token of the continuation is only predicted, never read. At least one token of the context stays.

    Raises:
        InputError: nothing to score, or more than the model can read.
    """
    if not continuation:
        raise InputError("a continuation of the task has no tokens; expected some text in every choice")
    if len(continuation) > longest:
        raise InputError(f"a continuation has {len(continuation):,} tokens, the model reads {longest:,}; shorten it")
    return context[len(continuation) - longest - 1 :], continuation
