"""Requests planned into buckets of similar shape: few shapes to compile, and little padding.

A bucket always gives the same answers: its rows share their batches with no other rows. So an interrupted evaluation
that is resumed ends like an uninterrupted one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

QUANTILES = (0.1, 0.5, 1.0)  # the longest tenth, the next longest, the shorter half: three shapes, not one per length
LENGTH_MULTIPLE = 16  # tokens; prompts of similar lengths in another evaluation use the same compiled shapes
BATCHES_PER_BUCKET = 16  # of generated answers; rows are idle only at the end of a bucket
MIN_BATCHES = 4  # of generated answers; fewer do not justify a shape of their own


@dataclass(frozen=True)
class Request:
    """The ids of a prompt, and the ids of its choices if the answer is one of them."""

    prompt: list[int]
    choices: tuple[list[int], ...] = ()
    adapter: int = 0  # the index of the adapter that answers


@dataclass(frozen=True)
class Bucket:
    """Indices of requests that are answered together, and the shape that they are padded to."""

    indices: tuple[int, ...]
    prompt_len: int
    choices: int = 0
    choice_len: int = 0


def plan_buckets(requests: Sequence[Request], batch_size: int) -> list[Bucket]:
    """Buckets of similar shape, long prompts first: one batch of choices each, or several of generated answers."""
    buckets = []
    for count in sorted({len(request.choices) for request in requests}):
        indices = [index for index, request in enumerate(requests) if len(request.choices) == count]
        longest = {index: max(map(len, requests[index].choices), default=0) for index in indices}
        lengths = list(longest.values())
        choice_lens = sorted({int(np.quantile(lengths, 1 - share, method="higher")) for share in (0, *QUANTILES)})
        size = batch_size if count else batch_size * BATCHES_PER_BUCKET
        by_length = sorted(indices, key=lambda index: -len(requests[index].prompt))
        for group in _groups(by_length, batch_size if count else batch_size * MIN_BATCHES):
            prompt_len = -(-len(requests[group[0]].prompt) // LENGTH_MULTIPLE) * LENGTH_MULTIPLE
            group = sorted(group, key=lambda index: (longest[index], len(requests[index].prompt)))
            for start in range(0, len(group), size):
                members = tuple(group[start : start + size])
                choice_len = next(length for length in choice_lens if length >= longest[members[-1]])
                buckets.append(Bucket(members, prompt_len, count, choice_len))
    return buckets


def _groups(indices: Sequence[int], size: int) -> list[Sequence[int]]:
    """The indices cut at the quantiles, but only at multiples of `size`: half a batch takes as long as a whole one."""
    cuts = sorted({min(-(-int(len(indices) * share) // size) * size, len(indices)) for share in QUANTILES})
    return [indices[start:end] for start, end in zip([0, *cuts], cuts, strict=False) if end > start]
