"""Scores of longer texts: rouge-score and sacrebleu, with one word segmentation for every language.

The segmentations of both libraries suit few languages: rouge-score keeps only a-z and 0-9, the default of sacrebleu
does not split Chinese and Thai sentences, and its FLORES tokenizers (spBLEU) need a download. Here a word is a run of
letters, marks and digits. In scripts without spaces between words, every letter with its marks is a word. There is no
stemming. For plain English the words are those of rouge-score. BLEU over these words can compare runs of this project
with each other, but not with published figures. chrF counts characters and is the chrF of sacrebleu.
"""

import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from jaxprefix.tasks.task import Example

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

# Prefixes of the Unicode names of letters. Tibetan is not listed: it marks syllables with a sign that is not a letter.
_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "MYANMAR", "KHMER")


def words(text: str, punctuation: bool = False) -> list[str]:
    """The words of a text in lower case. With `punctuation`, the case is kept and every other sign is a word."""
    result: list[str] = []
    joined = False  # whether the next letter continues the last word
    for letter in text if punctuation else text.lower():
        kind = _kind(letter)
        if kind == "mark" and result:
            result[-1] += letter
        elif kind == "letter" and joined:
            result[-1] += letter
        elif kind in ("letter", "mark", "whole") or (kind == "sign" and punctuation):
            result.append(letter)
        joined = kind in ("letter", "mark") and (joined or kind == "letter")
    return result


@cache
def _kind(letter: str) -> str:
    category = unicodedata.category(letter)
    if category.startswith("M"):
        return "mark"
    if category[0] in "LN":
        return "whole" if unicodedata.name(letter, "").startswith(_UNSPACED) else "letter"
    return "space" if letter.isspace() or category.startswith("C") else "sign"


class _Words:
    """The tokenizer interface of rouge-score."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


@cache
def _rouge() -> "RougeScorer":
    from rouge_score.rouge_scorer import RougeScorer  # slow to import, and only one task needs it

    return RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=_Words())


def score_summary(answer: str, example: Example) -> dict[str, float]:
    """ROUGE-L, ROUGE-1 and ROUGE-2 (Lin 2004), each the F1 with the best reference."""
    scores = _rouge().score_multi(example.references, answer)
    return {name: float(scores[name].fmeasure) for name in ("rougeL", "rouge1", "rouge2")}


@cache
def _chrf() -> "CHRF":
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()  # character n-grams up to 6, no words, recall weighs twice as much


@cache
def _bleu(sentence: bool) -> "BLEU":
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(tokenize="none", force=True, effective_order=sentence)


def _spaced(text: str) -> str:
    return " ".join(words(text, punctuation=True))


def score_translation(answer: str, example: Example) -> dict[str, float]:
    """chrF and BLEU of one sentence, from 0 to 1. `corpus_translation` scores a language."""
    spaced = [_spaced(reference) for reference in example.references]
    return {
        "chrf": _chrf().sentence_score(answer, list(example.references)).score / 100,
        "bleu": _bleu(True).sentence_score(_spaced(answer), spaced).score / 100,
    }


def corpus_translation(answers: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """chrF and BLEU of all sentences together, from 0 to 1. All have the same number of references."""
    streams = [list(stream) for stream in zip(*references, strict=True)]
    spaced = [[_spaced(reference) for reference in stream] for stream in streams]
    return {
        "chrf": _chrf().corpus_score(list(answers), streams).score / 100,
        "bleu": _bleu(False).corpus_score([_spaced(answer) for answer in answers], spaced).score / 100,
    }
