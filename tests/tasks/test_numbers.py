"""The number in an answer: as the scripts of GSM8K and MGSM find it, and in further forms."""

from fractions import Fraction
from pathlib import Path

import pytest
import small

from jaxprefix.tasks.gsm8k import GSM8K
from jaxprefix.tasks.metrics import harness
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
        # LaTeX.
        ("Therefore $\\boxed{1{,}234}$", "en", 1234),
        ("\\boxed{8,000}", "en", 8000),
        ("The answer is $9{,}500.", "en", 9500),
        ("\\boxed{\\$1\\,234\\,567}", "en", 1_234_567),
        ("$10,\\!000$", "en", 10_000),
        ("\\boxed{x = \\frac{1}{2}}", "en", Fraction(1, 2)),
        ("So \\boxed{\\text{Total: } 18}. It was 20 before.", "en", 18),
        ("Antwort: 1{.}234{,}5", "de", Fraction("1234.5")),
        # What follows an answer in brackets, as an equation or as a check.
        ("18 (= 3 * 6)", "en", 18),
        ("The answer is 18 (= 3 * 6).", "en", 18),
        ("The answer is 18 = 3 * 6.", "en", 18),
        ("The answer is 18. Check: 3 * 6 = 18 and 18 + 2 = 20.", "en", 18),
        ("The answer is 18. With a tip she pays 18 + 2 = 20.", "en", 18),
        ("She pays 3 * 6 = 18.\nCheck: 20 - 18 = 2", "en", 18),
        ("She pays 18 dollars.\n\nLet's verify our result: 20 - 18 = 2", "en", 18),
        ("Sie zahlt 18 Euro (6 Euro pro Person).", "de", 18),
        ("Sie zahlt 18 Euro. Probe: 18 / 6 = 3", "de", 18),
        ("她付了 18 元（3 × 6）。", "zh", 18),
        ("She pays 18 dollars. (Check: 20 - 18 = 2)", "en", 18),
        ("剩下的部分18元", "zh", 18),  # a number after a noun that it counts
        ("เหลือคำถาม 18 ข้อ", "th", 18),
        ("答案是18。验算：18 / 6 = 3", "zh", 18),
        ("It is 3 (2 + 4) = 18", "en", 18),  # a factor
        ("The answer is 3 apples * 6 = 18 apples", "en", 18),
        ("Answer: 5 + 6 = 10 + 1 = 11", "en", 11),
        ("Answer: 2x = 36, so x = 18", "en", 18),
        ("Answer: 100 * 2 ≈ 200", "en", 200),
        # What follows the solution: a next question, in whatever words.
        ("The answer is 18.\n\nProblem 2: Tom has 5 apples.\nSolution: 5 - 2 = 3\nThe answer is 3.", "en", 18),
        ("The answer is 18.\nTom eats 5 apples.\nHow many are left?\nThe answer is 3.", "en", 18),
        ("#### 18\nQuestion: Tom has 5 apples.\nAnswer: 3\n#### 3", "en", 18),
        ("The answer is 18.\n\n#### Exercise 2\nFind 3 + 4.", "en", 18),
        ("\\boxed{18}\n\nNext, find \\boxed{3}", "en", 18),
        ("3 * 6 = 18\n\nQuestion: Tom has 5 apples. How many?\nThe answer is 5.", "en", 18),
        ("3 * 6 = 18\n\nTom has 5 apples and eats 2. How many are left?\n5 - 2 = 3", "en", 18),
        ("3 * 6 = 18\nQ: 5 + 2?\nA: 7", "en", 18),
        ("3 * 6 = 18\nAufgabe 2: Tom hat 5 Äpfel.", "de", 18),
        ("คำตอบคือ 18\nโจทย์: ทอมมีแอปเปิ้ล 5 ผล\nคำตอบคือ 5", "th", 18),
        ("答えは18です。\n\n問題：トムは5個\n答えは5です。", "ja", 18),
        ("The answer is 12.\nWait, there are 3 boxes: 3 * 6 = 18.\nThe answer is 18.", "en", 18),
        ("The answer is 12.\n\nWait, I forgot a box.\nSo 12 + 6 = 18.\nThe answer is 18.", "en", 18),
        ("Question: Tom has 5 apples.\nAnswer: 18", "en", 18),  # the problem, repeated first
        ("How many boxes? 3.\n\nHow many apples? 3 * 6 = 18", "en", 18),
        # Numbers of parts and units, and words for "answer" that give none.
        ("The answer to part 2 is 18.", "en", 18),
        ("Answer to question 3: 18", "en", 18),
        ("Answer 2: 18", "en", 18),
        ("Die Antwort auf Frage 2 lautet 18.", "de", 18),
        ("So it is 18 in step 3.", "en", 18),
        ("The area is 18 m^2.", "en", 18),
        ("The area is 18 cm2", "en", 18),
        ("V = $18\\,\\text{cm}^{3}$", "en", 18),
        ("It costs 18 dollars per 100 g", "en", 18),
        ("He answered 5 questions, so 18 are left", "en", 18),
        ("We find the answer in 2 steps.\n3 * 6 = 18", "en", 18),
        ("At 2 points/answer it is 18", "en", 18),
        ("To answer 5 letters she needs 18 stamps", "en", 18),
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


@pytest.mark.parametrize(
    "text",
    ["", " \n", "####", "no number", "See part 2", "Step 1:", "Answer: eighteen", "Answer: 1.2.3", "-", "$", "十八"],
)
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


# What a base writes after a solution: a check, or more of what it was trained on.
RUN_ON = (
    "",
    " (= 3 * 7)",
    " Check: 3 * 7 = 21.",
    "\nQuestion: Ann has 5 pens and 5 pencils.\nThe answer is 10.",
    "\n\nTom has 5 apples and eats 2. How many are left?\nHe has 5 - 2 = 3.\nThe answer is 3.",
    "\nIn other words 7 of them.\nThe answer is 7.",
)


@small.needs_rows
def test_what_follows_a_real_solution_does_not_count():
    """1,319 solutions of GSM8K, in the form of training."""
    examples = [GSM8K.example(row, "en") for row in GSM8K.load("en", "test", small.MIRROR)]
    assert len(examples) == 1319
    for example in examples:
        assert example is not None
        for text in RUN_ON:
            assert score_number(find_number(example.response + text), example) == {"exact_match": 1.0}, example.id


# The harness's own filters and its metric are the oracle.
TEXTS = [
    "The answer is 18.",
    "The answer is 18 (= 3 * 6).",
    "The answer is 18. Check: 3 * 6 = 18.",
    "The answer is 18. The answer is 20",
    "Die Antwort lautet 18",
    "the answer is 18",
    "The answer is -18",
    "The answer is $18",
    "The answer is 18.0",
    "The answer is 1,8",
    "The answer is ১৮",
    "so 18...",
    "so 18, or not",
    "so it is 18 .",
    "$18",
    "18%",
    "1 8",
    "8",
    "x18",
    "",
]


@pytest.mark.parametrize("language", ["bn", "de", "en", "sw", "th", "zh"])
def test_the_harness_has_the_same_figures(language: str):
    import lm_eval.tasks
    import yaml
    from lm_eval.api.metrics import exact_match_hf_evaluate
    from lm_eval.filters.extraction import RegexFilter

    folder = Path(lm_eval.tasks.__path__[0]) / "mgsm" / "en_cot"
    assert "filter" not in (folder / f"mgsm_en_cot_{language}.yaml").read_text(encoding="utf-8")  # all from cot_yaml
    task = yaml.safe_load((folder / "cot_yaml").read_text(encoding="utf-8"))
    filters = {part["name"]: part["filter"][0] for part in task["filter_list"]}
    options = {name: value for name, value in task["metric_list"][0].items() if name.startswith("ignore")}
    example = Example("1", language, "", "", "?\n", "", references=("18",))
    for metric, name in zip(harness.METRICS, ("strict-match", "flexible-extract"), strict=True):
        settings = {key: value for key, value in filters[name].items() if key != "function"}
        extracted = RegexFilter(**settings).apply([[text] for text in TEXTS], [{}] * len(TEXTS))
        expected = [exact_match_hf_evaluate(numbers, ["18"], **options)["exact_match"] for numbers in extracted]
        assert [harness.score_text(text, example)[metric] for text in TEXTS] == expected
        assert 3 < sum(expected) < len(TEXTS) - 3
