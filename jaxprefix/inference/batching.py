"""What is asked, planned beforehand into parts of like shape: few shapes to compile, and few tokens of padding.

A part is done alike whenever it is done: its rows share their batches with no others, so that an interrupted evaluation
that goes on ends as an uninterrupted one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

QUANTILES = (0.1, 0.5, 1.0)  # the longest tenth, the next longest and the shorter half: three shapes, not one a length
ROUNDED = 16  # tokens; prompts of nearly the same lengths, in another evaluation, share what was compiled
GENERATED_TOGETHER = 16  # batches of a part whose rows are generated: at its end alone rows of the batch are idle
GENERATED_APART = 4  # batches of generated rows that are worth a shape, and such an end, of their own


@dataclass(frozen=True)
class Request:
    """A prompt's ids, and its candidates' where the answer is one of them."""

    prompt: list[int]
    choices: tuple[list[int], ...] = ()
    adapter: int = 0  # which of the model's adapters answers


@dataclass(frozen=True)
class Bucket:
    """Places in `asked` that are answered together, and the shape that they are padded to."""

    indices: tuple[int, ...]
    prompt_len: int  # of the prompts
    choices: int = 0
    choice_len: int = 0  # of the choices


def plan_buckets(requests: Sequence[Request], batch_size: int) -> list[Bucket]:
    """Parts of like shape, long prompts first: a batch of `size` rows of choices, or several of generated answers."""
    parts = []
    for count in sorted({len(each.choices) for each in requests}):
        places = [place for place, each in enumerate(requests) if len(each.choices) == count]
        widest = {place: max(map(len, requests[place].choices), default=0) for place in places}
        widths = sorted(
            {int(np.quantile(list(widest.values()), 1 - share, method="higher")) for share in (0, *QUANTILES)}
        )
        step = batch_size if count else batch_size * GENERATED_TOGETHER
        by_length = sorted(places, key=lambda place: -len(requests[place].prompt))
        for group in _groups(by_length, batch_size if count else batch_size * GENERATED_APART):
            time = -(-len(requests[group[0]].prompt) // ROUNDED) * ROUNDED
            group = sorted(group, key=lambda place: (widest[place], len(requests[place].prompt)))
            for start in range(0, len(group), step):
                part = tuple(group[start : start + step])
                width = next(width for width in widths if width >= widest[part[-1]])
                parts.append(Bucket(part, time, count, width))
    return parts


def _groups(places: Sequence[int], size: int) -> list[Sequence[int]]:
    """Cuts at the quantiles, but only at multiples of `size`: a batch that is half empty costs a whole one."""
    cuts = sorted({min(-(-int(len(places) * share) // size) * size, len(places)) for share in QUANTILES})
    return [places[start:end] for start, end in zip([0, *cuts], cuts, strict=False) if end > start]
