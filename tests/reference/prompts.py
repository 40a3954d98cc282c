"""Real prompts of five languages for tiny models: XQuAD's rows as the task asks them, in ids of a small BPE."""

from dataclasses import dataclass
from functools import cache

import hugging_face as hf
import numpy as np
import small
import tokenizers

from jaxprefix.tasks.task import Example
from jaxprefix.tasks.xquad import XQUAD

LANGUAGES = ("ar", "de", "en", "hi", "zh")
EACH = 40  # rows of a language
VOCABULARY, BOS = 512, 0
# Row by row in turn, so that each language has each length; the last four tokens are the same in all rows.
LENGTHS = (9, 48, 40, 34, 17, 12, 16, 24)
LONGEST = max(LENGTHS)
WIDTH = 6  # tokens of the longest choice of every row


@dataclass(frozen=True)
class Prompt:
    """The end of a row's prompt, as long as it gets, and pieces of the row's own texts that could follow."""

    ids: tuple[int, ...]  # LONGEST of them
    length: int  # of its own, in batches of rows of many lengths
    pieces: tuple[tuple[int, ...], ...]  # three, of 1 to WIDTH tokens

    def last(self, count: int) -> list[int]:
        """BOS and its last tokens, `count` together."""
        return [BOS, *self.ids[len(self.ids) - count + 1 :]] if count > 1 else [BOS]


@cache
def examples() -> tuple[Example, ...]:
    """The five languages in turn."""
    rows = {code: XQUAD.load(code, XQUAD.split, small.MIRROR)[: EACH * 7 : 7] for code in LANGUAGES}
    asked = [XQUAD.example(rows[code][number], code) for number in range(EACH) for code in LANGUAGES]
    return tuple(example for example in asked if example)


@cache
def tokenizer() -> tokenizers.Tokenizer:
    """Trained on the very rows."""
    return small.bpe([example.prompt for example in examples()], VOCABULARY)


@cache
def prompts(count: int = EACH * len(LANGUAGES)) -> tuple[Prompt, ...]:
    """The first `count` rows: as many of each language, and of each length where `count` is a multiple of 40."""
    return tuple(_prompt(number, example) for number, example in enumerate(examples()[:count]))


def _prompt(number: int, example: Example) -> Prompt:
    ids, answer, context = (
        tokenizer().encode(text, add_special_tokens=False).ids
        for text in (example.prompt, example.response, example.context)
    )
    random = np.random.default_rng(number)
    starts, (second, third) = random.integers(0, len(context) - WIDTH, 2), random.integers(1, WIDTH + 1, 2)
    pieces = (context[starts[0] : starts[0] + WIDTH], context[starts[1] : starts[1] + second], answer[:third])
    return Prompt(tuple(ids[-LONGEST:]), LENGTHS[number // len(LANGUAGES) % len(LENGTHS)], tuple(map(tuple, pieces)))


def padded(prompts: list[list[int]], side: str) -> hf.Rows:
    """Rows of LONGEST tokens, padded on one side with tokens that would matter if they were read."""
    tokens = np.random.default_rng(9).integers(2, VOCABULARY, (len(prompts), LONGEST)).astype(np.int32)
    mask = np.zeros(tokens.shape, bool)
    for row, ids in enumerate(prompts):
        place = slice(LONGEST - len(ids), None) if side == "left" else slice(len(ids))
        tokens[row, place], mask[row, place] = ids, True
    return hf.Rows(tokens, mask)
