"""How choices of several lengths share a shape."""

import pytest

from jaxprefix.inference.batching import Request, plan_buckets


@pytest.mark.parametrize(
    ("lengths", "padded"),
    [
        ((1, 1, 1, 1), 4),  # as many as choices: scoring.choices runs the prompts alone
        ((2, 1, 1, 1), 8),
        ((3, 4, 1), 8),
        ((9,), 16),
        ((0, 2), 8),  # as many tokens as choices, but one has a second token
        ((1, 2, 1, 2, 1, 1, 0, 0), 16),
    ],
)
def test_all_choices_are_padded_together(lengths: tuple[int, ...], padded: int):
    request = Request([5] * 3, tuple([7] * length for length in lengths))
    [bucket] = plan_buckets([request], 4)
    assert (bucket.choices, bucket.choices_len) == (len(lengths), padded)
