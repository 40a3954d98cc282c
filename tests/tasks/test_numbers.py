"""The number in an answer: as the scripts of GSM8K and MGSM find it, and in further forms."""

from fractions import Fraction

import pytest

from jaxprefix.tasks.metrics.numbers import find_number, read_number, score_number
from jaxprefix.tasks.task import Example


@pytest.mark.parametrize(
    ("text", "language", "value"),
    [
        # The scripts return the same: extract_answer of GSM8K with a mark, parse_answer of simple-evals otherwise.
        ("She has 5 + 7 = 12.\n#### 12", "en", 12),
        ("#### 1,080", "en", 1080),
        ("#### -5", "en", -5),
        ("##### 18", "en", 18),
        ("#### 18\n#### 20", "en", 18),
        ("Answer: 5 + 6 = 11", "en", 11),
        ("Answer: 16 - 3 = 13 eggs", "en", 13),
        ("Answer: 18.00", "en", 18),
        ("Answer: 1.234", "en", Fraction("1.234")),
        ("**Answer: 18**", "en", 18),
        ("Answer: 18 .", "en", 18),
        ("Answer: 5\nAnswer: 6", "en", 6),
        ("Ответ — 18", "ru", 18),
        ("答えは18です。 7 + 11 = 18 答え:18", "ja", 18),
        ("答案是 18。", "zh", 18),
        ("Jibu ni $18", "sw", 18),
        # lm-evaluation-harness's "The answer is", and its last number where nothing is marked.
        ("The answer is 18.", "en", 18),
        ("The answer is -3", "en", -3),
        ("In 3 days she earns 40, so 120", "en", 120),
        ("$ 2,000,000", "en", 2_000_000),
        ("It costs 18 dollars", "en", 18),
        ("the answer\nis 5", "en", 5),
        # Marks that the scripts do not know.
        ("#### $18", "en", 18),
        ("The final answer is: $1,234.50 per year", "en", Fraction("1234.5")),
        ("Die Antwort lautet 18.", "de", 18),
        ("La réponse est de 18 €", "fr", 18),
        ("La respuesta es 18", "es", 18),
        ("উত্তর হল ১৮।", "bn", 18),
        ("సమాధానం ౧౮", "te", 18),
        ("คำตอบคือ ๑๘ บาท", "th", 18),
        ("उत्तर: ₹१,०८०", "hi", 1080),
        ("答え：１８個", "ja", 18),
        ("答案：1，080", "zh", 1080),
        ("Answer: 12 apples in 3 days", "en", 12),  # the first number after the mark, where the scripts take the last
        ("To answer, take all of the apples that are in the bag: 5. So 7", "en", 7),  # too far from the word
        # Native digits without a mark.
        ("۱۸", "fa", 18),
        ("الإجابة: ١٬٠٨٠٫٥", "ar", Fraction("1080.5")),
        # Thousands.
        ("উত্তর: ১,০০,০০০", "bn", 100_000),
        ("Antwort: 1.000", "de", 1000),
        ("Antwort: 1,000", "de", 1000),
        ("Antwort: 1 000", "de", 1000),
        ("Antwort: 1'000", "de", 1000),
        ("Antwort: 1’000’000", "de", 1_000_000),
        ("La réponse est 1\u202f000 €", "fr", 1000),
        ("Réponse : 1\u00a0000,5", "fr", Fraction("1000.5")),
        ("12 000 000", "en", 12_000_000),
        ("100 2000", "en", 2000),
        # Decimals.
        ("Antwort: 2,50 €", "de", Fraction("2.5")),
        ("Antwort: 1.234,5", "de", Fraction("1234.5")),
        ("Antwort: 1,234.5", "de", Fraction("1234.5")),
        ("Antwort: 0,125", "de", Fraction("0.125")),
        ("Answer: 1,5", "en", Fraction("1.5")),
        (".5", "en", Fraction("0.5")),
        ("007", "en", 7),
        # Signs, currency, percent.
        ("The answer is −3", "en", -3),
        ("16-3", "en", 3),
        ("(5)", "en", 5),
        ("-$5", "en", -5),
        ("$-5", "en", -5),
        ("10–12", "en", 12),
        ("50%", "en", 50),
        ("x² = 10²", "en", 10),
        # Fractions.
        ("1/2", "en", Fraction(1, 2)),
        ("2 1/2", "en", Fraction(5, 2)),
        ("2½ cups", "en", Fraction(5, 2)),
        ("⅔", "en", Fraction(2, 3)),
        ("5/0", "en", 0),  # not a fraction: two numbers
    ],
)
def test_the_number_of_a_text(text: str, language: str, value: int | Fraction):
    found = find_number(text)
    assert read_number(found, language) == value
    assert find_number(found) == found  # what is found is an answer itself


@pytest.mark.parametrize("text", ["", " \n", "####", "no number", "Answer: eighteen", "1.2.3", "-", "$", "十八"])
def test_a_text_without_a_number_is_a_parse_failure(text: str):
    assert find_number(text) == ""
    example = Example("1", "en", "", "", "?\n", "", references=("0",))
    assert score_number(find_number(text), example) == {"exact_match": 0.0}


@pytest.mark.parametrize(
    ("answer", "language", "reference", "score"),
    [
        ("1,080", "en", "1080", 1),
        ("1.080", "de", "1,080", 1),
        ("1.080", "en", "1080", 0),  # a point before decimals, in English
        ("18.00", "en", "18", 1),
        ("5/2", "fr", "2.5", 1),
        ("2,5", "fr", "2.5", 1),
        ("-18", "en", "18", 0),
        ("019", "en", "18", 0),
    ],
)
def test_values_are_compared(answer: str, language: str, reference: str, score: float):
    example = Example("1", language, "", "", "?\n", "", references=(reference,))
    assert score_number(answer, example) == {"exact_match": score}
