"""Requests planned into buckets of similar shape: few shapes to compile, and little padding.

A bucket always gives the same answers: its rows share their batches with no other rows. So an interrupted evaluation
that is resumed ends like an uninterrupted one.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np

CacheKey = tuple[int, tuple[int, ...]]  # what the cache of a shared prompt depends on: adapter and ids
Item = TypeVar("Item")

QUANTILES = (0.1, 0.5, 1.0)  # the longest tenth, the next longest, the shorter half: three shapes, not one per length
LENGTH_MULTIPLE = 16  # tokens; prompts of similar lengths in another evaluation use the same compiled shapes
CHOICES_MULTIPLE = 8  # tokens of all choices of a prompt
BATCHES_PER_BUCKET = 16  # of generated answers; rows are idle only at the end of a bucket
MIN_BATCHES = 4  # of generated answers; fewer do not justify a shape of their own


@dataclass(frozen=True)
class Request:
    """The ids of a prompt, and the ids of its choices if the answer is one of them."""

    prompt: list[int]
    choices: tuple[list[int], ...] = ()
    adapter: int = 0  # the index of the adapter that answers
    shared_prompt: tuple[int, ...] = ()  # the beginning of several prompts, which is computed once for all of them

    @cached_property
    def shared(self) -> int:
        """How many ids of the shared prompt the prompt begins with. At least one id is left for the rest."""
        return min(common_length(self.prompt, self.shared_prompt), len(self.prompt) - 1)

    @property
    def rest(self) -> list[int]:
        """The prompt without the ids that it begins with."""
        return self.prompt[self.shared :]

    @property
    def choices_len(self) -> int:
        """The tokens of all choices."""
        return sum(map(len, self.choices))

    @property
    def cache_key(self) -> CacheKey | None:
        """The key of the shared prompt's cache; None without one."""
        return (self.adapter, self.shared_prompt) if self.shared_prompt else None


@dataclass(frozen=True)
class Bucket:
    """Indices of requests that are answered together, and the shape that they are padded to.

    All have the same shared prompt, or none. `prompt_len` is the length of the rests, and `choices_len` that of all
    choices together.
    """

    indices: tuple[int, ...]
    prompt_len: int
    choices: int = 0
    choices_len: int = 0
    shared_len: int = 0


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """The number of ids that both begin with."""
    differences = (index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differences, min(len(one), len(other)))


def plan_buckets(requests: Sequence[Request], batch_size: int) -> list[Bucket]:
    """Buckets of similar shape, long prompts first: one batch of choices each, or several of generated answers.

    Buckets with the same shared prompt follow each other.
    """
    buckets = []
    shared_len = _rounded(max((len(request.shared_prompt) for request in requests), default=0))
    for count in sorted({len(request.choices) for request in requests}):
        indices = [index for index, request in enumerate(requests) if len(request.choices) == count]
        padded = {index: _choices_padded(requests[index]) for index in indices}
        lengths = list(padded.values())
        choices_lens = sorted({int(np.quantile(lengths, 1 - share, method="higher")) for share in (0, *QUANTILES)})
        size = batch_size if count else batch_size * BATCHES_PER_BUCKET
        by_length = sorted(indices, key=lambda index: -len(requests[index].rest))
        for group in _groups(by_length, batch_size if count else batch_size * MIN_BATCHES):
            prompt_len = _rounded(len(requests[group[0]].rest))
            group = sorted(group, key=lambda index: (padded[index], len(requests[index].rest)))
            for key, same in _grouped(group, lambda index: requests[index].cache_key).items():
                for start in range(0, len(same), size):
                    members = tuple(same[start : start + size])
                    choices_len = next(length for length in choices_lens if length >= padded[members[-1]])
                    buckets.append(Bucket(members, prompt_len, count, choices_len, shared_len if key else 0))
    by_key = _grouped(buckets, lambda bucket: requests[bucket.indices[0]].cache_key)
    return [bucket for same in by_key.values() for bucket in same]


def _grouped(items: Iterable[Item], key_of: Callable[[Item], CacheKey | None]) -> dict[CacheKey | None, list[Item]]:
    """The items by key, in the order of the first item of each."""
    groups: dict[CacheKey | None, list[Item]] = {}
    for item in items:
        groups.setdefault(key_of(item), []).append(item)
    return groups


def _rounded(length: int, multiple: int = LENGTH_MULTIPLE) -> int:
    return -(-length // multiple) * multiple


def _choices_padded(request: Request) -> int:
    """The length of all choices, padded; that of choices of one token each, which need no pass, is their number."""
    count = len(request.choices)
    if all(len(choice) == 1 for choice in request.choices):
        return count
    return _rounded(max(request.choices_len, count + 1), CHOICES_MULTIPLE)


def _groups(indices: Sequence[int], size: int) -> list[Sequence[int]]:
    """The indices cut at the quantiles, but only at multiples of `size`: half a batch takes as long as a whole one."""
    cuts = sorted({min(-(-int(len(indices) * share) // size) * size, len(indices)) for share in QUANTILES})
    return [indices[start:end] for start, end in zip([0, *cuts], cuts, strict=False) if end > start]
