"""Scores are those of SQuAD v1.1's evaluation script: every figure below is what that script itself returns."""

import json

import pytest
import small

from jaxprefix.tasks.metrics import (
    accuracy,
    best,
    exact_match,
    f1,
    first_line,
    normalise,
    score_choice,
    score_generated,
)
from jaxprefix.tasks.task import Example
from jaxprefix.tasks.xquad import XQUAD


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("  The  Cat,\tsat\non\xa0a mat. ", "cat sat on mat"),
        ("the-end", "theend"),  # the hyphen leaves no space, so no article is left
        ("a. m.", "m"),
        ("A.M.", "am"),
        ("Theater", "theater"),
        ("snake_case", "snakecase"),
        ("don't", "dont"),
        ("“Paris”", "“paris”"),  # only ASCII punctuation goes
        ("पैंथर्स।", "पैंथर्स।"),
        ("黑豹。", "黑豹。"),
        ("x—the—y", "x— —y"),  # an article leaves a space
        ("x\u200by", "x\u200by"),  # a zero-width space is not a space
        ("a\u0301", "\u0301"),  # a combining accent ends a word: the bare letter was an article
        ("İstanbul", "i\u0307stanbul"),
        ("", ""),
        (" the a an ", ""),
    ],
)
def test_normalises_as_the_script(text: str, normalised: str):
    assert normalise(text) == normalised


@pytest.mark.parametrize(
    ("prediction", "reference", "expected_f1", "expected_match"),
    [
        ("the cat", "a cat", 1, 1),
        ("Denver Broncos", "The Denver Broncos!", 1, 1),
        ("Broncos Denver", "Denver Broncos", 1, 0),
        ("in the 1920s", "1920s", 2 / 3, 0),
        ("new new york", "new york", 0.8, 0),  # a word counts as often as it occurs in both
        ("new york new york", "new york", 2 / 3, 0),
        ("1,000", "1000", 1, 1),
        ("1 000", "1000", 0, 0),
        ("$5", "5", 1, 1),
        ("€5", "5", 0, 0),
        ("The", "a", 0, 1),  # nothing is left of either: equal, yet no word is shared
        ("", "", 0, 1),
        ("", "x", 0, 0),
        ("黑豹队", "黑豹", 0, 0),  # one word between spaces: all or nothing
        ("黑豹.", "黑豹", 1, 1),
        ("٣٠٨", "308", 0, 0),
        ("ÉCOLE", "école", 1, 1),
        ("Straße", "STRASSE", 0, 0),
        ("Café", "Cafe\u0301", 0, 0),
    ],
)
def test_scores_as_the_script(prediction: str, reference: str, expected_f1: float, expected_match: float):
    assert f1(prediction, reference) == pytest.approx(expected_f1, abs=1e-12)
    assert exact_match(prediction, reference) == expected_match


def test_the_best_reference_counts_for_each_metric_apart():
    assert best(f1, "new york city", ("new york", "york city new", "boston")) == 1.0
    assert best(exact_match, "new york city", ("york city new", "boston")) == 0.0
    assert best(exact_match, "Boston", ("new york", "boston")) == 1.0


def test_accuracy_is_to_the_letter():
    assert accuracy("neutral", "neutral") == 1.0
    assert accuracy("Neutral", "neutral") == 0.0


@pytest.mark.parametrize(
    ("generated", "answer"),
    [
        ("308\nQuestion: and then?", "308"),
        ("\n \n\t308 Punkte \r\nmore", "308 Punkte"),
        ("308", "308"),
        ("", ""),
        (" \n ", ""),
    ],
)
def test_an_answer_is_the_first_line_that_is_not_blank(generated: str, answer: str):
    assert first_line(generated) == answer


def test_what_follows_a_generated_answer_costs_nothing():
    example = Example("1", "de", "", "", "Frage?\n", "308 Punkte", references=("308 Punkte", "308"))

    def scored(text: str) -> dict[str, float]:
        return score_generated(XQUAD.answer(text), example)

    assert scored("\n 308 Punkte.\nQuestion: Wer?\nAnswer:\nPunkte") == {"f1": 1.0, "em": 1.0}
    assert scored("308 Tore\n308") == {"f1": pytest.approx(2 / 3), "em": 0.0}
    assert scored("\n\n") == {"f1": 0.0, "em": 0.0}


def test_a_choice_scores_against_the_response():
    example = Example("1", "de", "", "", "?\n", "neutral", choices=("entailment", "neutral"))
    assert score_choice("neutral", example) == {"accuracy": 1.0}
    assert score_choice("entailment", example) == {"accuracy": 0.0}


@small.needs_rows
def test_every_gold_answer_of_xquad_is_right():
    files = sorted(small.MIRROR.glob("google/xquad/xquad.*/validation.jsonl"))
    assert files
    for file in files:
        with file.open(encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        assert len(rows) == 1190
        for row in rows:
            example = XQUAD.example(row, file.parent.name.removeprefix("xquad."))
            assert example is not None
            assert XQUAD.score(XQUAD.answer(example.response + "\nQuestion: x"), example) == {"f1": 1.0, "em": 1.0}, (
                example
            )
