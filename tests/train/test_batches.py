"""Batches: every row once per epoch, an order that depends on seed and step, three shapes, no lost token."""

from itertools import islice
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxprefix.models.hooks import NEVER
from jaxprefix.tasks.encoding import Encoded, encode, prompt_ids
from jaxprefix.tasks.task import Example
from jaxprefix.text.tokenizer import Tokenizer, load_tokenizer
from jaxprefix.train.batches import Bucket, buckets, collate, epoch, steps_from

LENGTHS = [(5, 2), (90, 3), (33, 1), (14, 9), (60, 2), (7, 7), (20, 30), (3, 1), (41, 4), (12, 2), (9, 3)]


def row(prompt: int, response: int, first: int = 10) -> Encoded:
    ids = list(range(first, first + prompt + response))
    return Encoded(ids[:prompt], ids[prompt:], cut=False)


ROWS = [row(*lengths) for lengths in LENGTHS * 3]
pairs = st.lists(st.tuples(st.integers(0, 70), st.integers(1, 40)).filter(lambda pair: sum(pair) > 1), min_size=1)


@settings(deadline=None)
@given(lengths=pairs, size=st.integers(1, 9), seed=st.integers(0, 3), number=st.integers(0, 2))
def test_every_row_once_an_epoch_and_every_token_learnt_once(lengths, size: int, seed: int, number: int):
    """For any lengths: at most three shapes, all steps full but one, and the targets of each row follow its inputs."""
    rows = [row(*pair, first=100 * index) for index, pair in enumerate(lengths, 1)]
    shapes = buckets(rows)
    assert 1 <= len(shapes) <= 3
    steps = epoch(rows, shapes, size, seed, number)
    assert sorted(index for _, chosen in steps for index in chosen) == list(range(len(rows)))
    assert sum(len(chosen) < size for _, chosen in steps) <= 1
    for bucket, chosen in steps:
        batch = collate([rows[index] for index in chosen], bucket, size, pad=0)
        assert batch.tokens.shape == (1, size, bucket.seq_len) and batch.loss_positions.shape == (
            1,
            size,
            bucket.num_targets,
        )
        for place in range(size):
            learnt = batch.loss_mask[0, place] > 0
            if place >= len(chosen):  # a missing row is padding
                assert not learnt.any() and batch.lengths[0, place] == 0
                continue
            own = rows[chosen[place]]
            ids, before = own.prompt + own.response, batch.tokens[0, place, batch.loss_positions[0, place, learnt]]
            # ids count up, so that each target is the successor of the token that it is read from
            assert batch.targets[0, place, learnt].tolist() == ids[max(len(own.prompt), 1) :]
            assert (batch.targets[0, place, learnt] == before + 1).all()
            assert batch.tokens[0, place, : batch.lengths[0, place]].tolist() == ids[:-1]


def test_the_order_is_the_seeds_and_the_epochs():
    shapes = buckets(ROWS)
    one = epoch(ROWS, shapes, 4, seed=1, number=0)
    assert one == epoch(ROWS, shapes, 4, seed=1, number=0)
    assert one != epoch(ROWS, shapes, 4, seed=2, number=0)
    assert one != epoch(ROWS, shapes, 4, seed=1, number=1)
    times = [bucket.seq_len for bucket, _ in epoch(ROWS * 4, buckets(ROWS * 4), 4, seed=1, number=0)]
    assert times != sorted(times)  # lengths are mixed, so that the run does not end with the longest


@pytest.mark.parametrize("position", [0, 1, 8, 9, 10, 23])
def test_the_step_is_enough_to_resume(position: int):
    """The remaining steps are the same, also across epochs (9 steps each)."""
    shapes = buckets(ROWS)
    assert len(epoch(ROWS, shapes, 4, 5, 0)) == 9
    whole = list(islice(steps_from(ROWS, shapes, 4, 5, 0), 40))
    assert list(islice(steps_from(ROWS, shapes, 4, 5, position), 40 - position)) == whole[position:]
    assert whole[:9] == epoch(ROWS, shapes, 4, 5, 0) and whole[9:18] == epoch(ROWS, shapes, 4, 5, 1)


def test_a_batch_as_a_literal():
    """Two rows in two micro-batches; the last token is not an input, and the tokens of a prompt are not targets."""
    rows = [Encoded([1, 5, 6], [7, 2], cut=False), Encoded([1], [8, 9, 2], cut=False)]
    batch = collate(rows, Bucket(seq_len=5, num_targets=4), size=2, pad=0, accumulate=2)
    assert batch.tokens.tolist() == [[[1, 5, 6, 7, 0]], [[1, 8, 9, 0, 0]]]
    assert batch.lengths.tolist() == [[4], [3]]
    first = jax.tree.map(lambda leaf: jnp.asarray(leaf[1]), batch).inputs
    assert first.is_right_padded and first.positions.tolist() == [[0, 1, 2, NEVER, NEVER]]
    assert batch.loss_positions.tolist() == [[[2, 3, 0, 0]], [[0, 1, 2, 0]]]
    assert batch.targets.tolist() == [[[7, 2, 0, 0]], [[8, 9, 2, 0]]]
    assert batch.loss_mask.tolist() == [[[1, 1, 0, 0]], [[1, 1, 1, 0]]]
    assert batch.tokens.dtype == np.int32 and batch.loss_mask.dtype == np.float32


def test_a_row_without_a_prompt_learns_all_but_its_first_token():
    batch = collate([Encoded([], [4, 5, 6], cut=False)], Bucket(seq_len=3, num_targets=3), size=1, pad=0)
    assert batch.tokens.tolist() == [[[4, 5, 0]]]
    assert batch.loss_positions.tolist() == [[[0, 1, 0]]] and batch.targets.tolist() == [[[5, 6, 0]]]
    assert batch.loss_mask.tolist() == [[[1, 1, 0]]]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    directory: Path = tmp_path_factory.mktemp("tokenizer")
    small.bpe([each["prompt"] for each in small.rows(35)], 300).save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text('{"bos_token": "<s>", "eos_token": "</s>"}')
    return load_tokenizer(directory)


LONG = Example(
    "1", "en", before="Read.\n", context="Il était une fois 雪の国. " * 9, after="\nWho?\n", response="the queen"
)


@pytest.mark.parametrize("room", [None, 5])
def test_only_the_context_is_cut(tokenizer: Tokenizer, room: int | None):
    """The longest beginning of the context that fits; question and answer stay whole."""
    answer = tokenizer.response_ids("the queen")
    taken = len(answer) if room is None else room
    whole = prompt_ids(tokenizer, LONG, chat=False)
    empty = prompt_ids(tokenizer, Example("1", "en", "Read.\n", "", "\nWho?\n", ""), chat=False)
    for length in range(len(empty) + taken, len(whole) + taken + 2, 7):
        found = encode(tokenizer, LONG, length, room)
        assert found is not None and found.response == answer
        assert found.cut == (length < len(whole) + taken)
        assert length - 4 <= len(found.prompt) + taken <= length or not found.cut  # a character has at most 4 tokens
        text = tokenizer.decode(found.prompt)
        context = text.removeprefix("Read.\n").removesuffix("\nWho?\n")
        assert text == "Read.\n" + context + "\nWho?\n" and LONG.context.startswith(context)
    assert encode(tokenizer, LONG, len(empty) + taken - 1, room) is None


def test_training_and_evaluation_see_the_same_ids(tokenizer: Tokenizer):
    """The prompt does not depend on the room for the answer, and the ids of the response not on the prompt."""
    learn, ask = encode(tokenizer, LONG, 999), encode(tokenizer, LONG, 999, room=40)
    assert learn is not None and learn == ask and not learn.cut
    assert learn.prompt[0] == tokenizer.bos and learn.prompt.count(tokenizer.bos or 0) == 1
    assert learn.response == [*tokenizer.encode("the queen"), tokenizer.eos[0]]
