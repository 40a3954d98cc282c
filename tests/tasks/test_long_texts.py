"""ROUGE, BLEU and chrF: the figures of the libraries where words are split in the same way, and otherwise counted by
hand.
"""

import math

import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from jaxprefix.tasks.metrics.texts import corpus_translation, score_summary, score_translation, words
from jaxprefix.tasks.task import Example


def example(*references: str, language: str = "en") -> Example:
    return Example("1", language, "", "", "?\n", references[0], references=references)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The mill's 2 wheels—gone!", ["the", "mill", "s", "2", "wheels", "gone"]),
        ("किताब १२।", ["किताब", "१२"]),  # vowel signs are not letters, and stay in their word
        ("قَلَم، كتاب", ["قَلَم", "كتاب"]),
        ("磨坊建于1871年。", ["磨", "坊", "建", "于", "1871", "年"]),
        ("カメラ です", ["カ", "メ", "ラ", "で", "す"]),
        ("สวัสดี", ["ส", "วั", "ส", "ดี"]),  # marks go with their letter
        ("ខ្មែរ", ["ខ្", "មែ", "រ"]),
        ("བོད་ཡིག", ["བོད", "ཡིག"]),
        ("도서관에 간다", ["도서관에", "간다"]),
        ("a\u200bb", ["a", "b"]),
        ("", []),
        ("!?", []),
    ],
)
def test_words(text: str, expected: list[str]):
    assert words(text) == expected


def test_words_with_punctuation_keep_case_and_signs():
    assert words("The mill, 磨坊。", punctuation=True) == ["The", "mill", ",", "磨", "坊", "。"]


@pytest.mark.parametrize(
    ("answer", "references"),
    [
        ("The mill was built in 1871 by the river", ["The old mill by the river was built in 1871."]),
        ("a b c d e", ["e d c b a", "a b d e"]),
        ("One, two; three!", ["one two three", "four"]),
        ("", ["something"]),
        ("nothing alike", ["something else"]),
    ],
)
def test_rouge_of_plain_english_is_the_librarys(answer: str, references: list[str]):
    theirs = RougeScorer(["rougeL", "rouge1", "rouge2"]).score_multi(references, answer)
    ours = score_summary(answer, example(*references))
    assert list(ours) == ["rougeL", "rouge1", "rouge2"]
    assert ours == {name: pytest.approx(theirs[name].fmeasure) for name in ours}


def test_rouge_counts_chinese_by_characters():
    """5 of 6 and 5 of 5 characters are shared, in the same order; 3 of their 5 and 4 pairs."""
    scores = score_summary("磨坊建于河边", example("磨坊建河边。", language="zh"))
    assert scores["rouge1"] == scores["rougeL"] == pytest.approx(2 * 5 / (6 + 5))
    assert scores["rouge2"] == pytest.approx(2 * 3 / (5 + 4))


ANSWERS = ["The cat sat on the mat .", "It is raining today"]
REFERENCES = [["The cat is on the mat ."], ["It rains today"]]


def test_chrf_is_sacrebleus():
    whole = corpus_translation(ANSWERS, REFERENCES)
    streams = [[reference[0] for reference in REFERENCES]]
    assert whole["chrf"] == pytest.approx(sacrebleu.corpus_chrf(ANSWERS, streams).score / 100)
    row = score_translation("猫坐在垫子上。", example("猫在垫子上。", language="zho_Hans"))
    assert row["chrf"] == pytest.approx(sacrebleu.sentence_chrf("猫坐在垫子上。", ["猫在垫子上。"]).score / 100)


def test_bleu_of_plain_english_is_sacrebleus_default():
    streams = [[reference[0] for reference in REFERENCES]]
    theirs = sacrebleu.corpus_bleu(ANSWERS, streams, tokenize="13a", force=True).score / 100
    assert corpus_translation(ANSWERS, REFERENCES)["bleu"] == pytest.approx(theirs)


def test_bleu_counts_chinese_by_characters():
    """Of 7 characters 6 match, 5 of 6 pairs ... of the reference's 8: precision by order, and a penalty for brevity."""
    answer, reference = "猫坐在垫子上面", "猫坐在垫子上边上"
    precisions = [6 / 7, 5 / 6, 4 / 5, 3 / 4]
    expected = math.exp(1 - 8 / 7) * math.prod(precisions) ** 0.25
    assert corpus_translation([answer], [[reference]])["bleu"] == pytest.approx(expected)
    assert score_translation(answer, example(reference))["bleu"] == pytest.approx(expected)


def test_right_and_empty_answers():
    assert score_translation("Guten Tag.", example("Guten Tag.")) == {
        "chrf": pytest.approx(1),
        "bleu": pytest.approx(1),
    }
    assert score_translation("", example("Guten Tag.")) == {"chrf": 0, "bleu": 0}
    assert corpus_translation(["", ""], [["a b"], ["c d"]]) == {"chrf": 0, "bleu": 0}
