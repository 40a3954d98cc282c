"""Scores of longer texts, by rouge-score and sacrebleu over words that are told apart alike in every language.

Both libraries' own words serve few languages: rouge-score keeps a-z and 0-9 alone, sacrebleu's default leaves Chinese
and Thai sentences whole, and its tokenizers of FLORES (spBLEU) need a download. Here a word is a run of letters, marks
and digits, and in scripts that put no spaces between words every letter (with its marks) is one; there is no stemming.
In plain English those are rouge-score's own. BLEU over these words compares runs of this project with each other, not
with published figures; chrF counts characters, needs no words, and is sacrebleu's own.
"""

import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from jaxprefix.tasks.task import Example

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer

# As Unicode's names of their letters begin. Tibetan marks its syllables, by a sign that is no letter.
_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "MYANMAR", "KHMER")


def words(text: str, punctuation: bool = False) -> list[str]:
    """The words of a text in lower case; with `punctuation`, in their own case and with every other sign as a word."""
    found: list[str] = []
    joined = False  # whether the next letter goes on with the last word
    for letter in text if punctuation else text.lower():
        kind = _kind(letter)
        if kind == "mark" and found:
            found[-1] += letter
        elif kind == "letter" and joined:
            found[-1] += letter
        elif kind in ("letter", "mark", "whole") or (kind == "sign" and punctuation):
            found.append(letter)
        joined = kind in ("letter", "mark") and (joined or kind == "letter")
    return found


@cache
def _kind(letter: str) -> str:
    category = unicodedata.category(letter)
    if category.startswith("M"):
        return "mark"
    if category[0] in "LN":
        return "whole" if unicodedata.name(letter, "").startswith(_UNSPACED) else "letter"
    return "space" if letter.isspace() or category.startswith("C") else "sign"


class _Words:
    """What rouge-score asks of a tokenizer."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


@cache
def _rouge() -> "RougeScorer":
    from rouge_score.rouge_scorer import RougeScorer  # slow to import, and needed by one task

    return RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=_Words())


def score_summary(answer: str, example: Example) -> dict[str, float]:
    """ROUGE-L, ROUGE-1 and ROUGE-2 (Lin 2004), each the F1 of its best reference."""
    found = _rouge().score_multi(example.references, answer)
    return {name: float(found[name].fmeasure) for name in ("rougeL", "rouge1", "rouge2")}


@cache
def _chrf() -> Any:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()  # characters to order 6, no words, recall twice as weighty


@cache
def _bleu(sentence: bool) -> Any:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(tokenize="none", force=True, effective_order=sentence)


def _spaced(text: str) -> str:
    return " ".join(words(text, punctuation=True))


def score_translation(answer: str, example: Example) -> dict[str, float]:
    """chrF and BLEU of one sentence, from 0 to 1; a language's own are `corpus_translation`'s."""
    spaced = [_spaced(reference) for reference in example.references]
    return {
        "chrf": _chrf().sentence_score(answer, list(example.references)).score / 100,
        "bleu": _bleu(True).sentence_score(_spaced(answer), spaced).score / 100,
    }


def corpus_translation(answers: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """chrF and BLEU of all sentences together, from 0 to 1; each has equally many references."""
    streams = [list(stream) for stream in zip(*references, strict=True)]
    spaced = [[_spaced(reference) for reference in stream] for stream in streams]
    return {
        "chrf": _chrf().corpus_score(list(answers), streams).score / 100,
        "bleu": _bleu(False).corpus_score([_spaced(answer) for answer in answers], spaced).score / 100,
    }
