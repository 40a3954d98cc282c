"""Scores are those of MLQA's evaluation script: every figure below is what that script itself returns."""

import pytest

from jaxprefix.tasks.metrics.mlqa import exact_match, f1, normalise, score_by_language
from jaxprefix.tasks.task import Example

# language, prediction, reference, the prediction normalised, F1, exact match
SCRIPT = [
    ("en", "The “U.S.A.”, an ally", "usa ally", "usa ally", 1.0, 1),
    ("en", "A — the", "the", "", 0.0, 1),
    ("en", "$5 + 5%", "5 5", "5 5", 1.0, 1),
    ("en", "snake_case", "snakecase", "snakecase", 1.0, 1),
    ("de", "Die Mühle des Dorfes", "Mühle Dorfes", "mühle dorfes", 1.0, 1),
    ("de", "„Der Bäcker“", "bäcker", "bäcker", 1.0, 1),
    ("de", "einer", "die", "", 0.0, 1),
    ("de", "The mill", "mill", "the mill", 0.666666666667, 0),
    ("de", "STRASSE", "Straße", "strasse", 0.0, 0),
    ("es", "¿El niño?", "niño", "niño", 1.0, 1),
    ("es", "unos años", "los años", "años", 1.0, 1),
    ("es", "él", "el", "él", 0.0, 0),
    ("vi", "những cái của tôi", "tôi", "tôi", 1.0, 1),
    ("vi", "CHIẾC", "chiếc", "", 0.0, 1),
    ("hi", "एक पैंथर।", "एक पैंथर", "एक पैंथर", 1.0, 1),
    ("hi", "पैंथर॥", "पैंथर", "पैंथर", 1.0, 1),
    ("hi", "१२ अंक", "12 अंक", "१२ अंक", 0.5, 0),
    ("ar", "مجال", "مج", "مج", 1.0, 1),
    ("ar", "المجال الكبير", "مجال كبير", "مج كبير", 1.0, 1),
    ("ar", "سؤاله", "سؤ", "سؤ ه", 0.666666666667, 0),
    ("ar", "ال", "الال", "", 0.0, 1),
    ("ar", "بالعربية", "العربية", "ب عربية", 0.666666666667, 0),
    ("ar", "كتاب، قلم؟", "كتاب قلم", "كتاب قلم", 1.0, 1),
    ("ar", "الْكتاب", "كتاب", "ْكتاب", 0.0, 0),
    ("zh", "黑豹队", "黑豹", "黑 豹 队", 0.8, 0),
    ("zh", "《黑豹》，队。", "黑豹队", "黑 豹 队", 1.0, 1),
    ("zh", "1871年", "1871 年", "1871 年", 1.0, 1),
    ("zh", "NFL联盟", "nfl 联盟", "nfl 联 盟", 1.0, 1),
    ("zh", "㐀㐁", "㐀", "㐀㐁", 0.0, 0),
    ("zh", "黑 豹", "黑豹", "黑 豹", 1.0, 1),
    ("zh", "第３名", "第3名", "第 ３ 名", 0.666666666667, 0),
    ("zh", "", "", "", 0.0, 1),
    ("en", "", "", "", 0.0, 1),
    ("en", "", "x", "", 0.0, 0),
    ("zh", "豹黑", "黑豹", "豹 黑", 1.0, 0),
]


@pytest.mark.parametrize(("language", "prediction", "reference", "normalised", "expected_f1", "expected_match"), SCRIPT)
def test_scores_as_the_script(
    language: str, prediction: str, reference: str, normalised: str, expected_f1: float, expected_match: int
):
    assert normalise(prediction, language) == normalised
    assert f1(prediction, reference, language) == pytest.approx(expected_f1, abs=1e-12)
    assert exact_match(prediction, reference, language) == expected_match


@pytest.mark.parametrize(
    ("prediction", "normalised"),
    [
        ("مجال", "مجال"),  # the letters of the article within a word are kept
        ("سؤاله", "سؤاله"),
        ("المجال الكبير", "مجال كبير"),  # at the front they are removed, once
        ("بالعربية", "بالعربية"),  # both variants keep a preposition that is joined to the article
        ("ال", "ال"),  # alone they are not an article
        ("كتاب، القلم؟", "كتاب قلم"),
    ],
)
def test_the_fixed_variant_drops_the_arabic_article_at_the_front_of_words_alone(prediction: str, normalised: str):
    assert normalise(prediction, "ar", fixed=True) == normalised


def test_the_fixed_variant_differs_in_arabic_alone():
    for language, prediction, reference, normalised, expected_f1, expected_match in SCRIPT:
        if language != "ar":
            assert normalise(prediction, language, fixed=True) == normalised
            assert f1(prediction, reference, language, fixed=True) == pytest.approx(expected_f1, abs=1e-12)
            assert exact_match(prediction, reference, language, fixed=True) == expected_match


def test_an_example_is_scored_by_its_language_and_its_best_references():
    german = Example("1", "de", "", "", "?\n", "Dorf", references=("das alte Dorf", "Dorf"))
    assert score_by_language("Die Dorf", german) == {"f1": 1, "em": 1, "f1_fixed": 1, "em_fixed": 1}
    arabic = Example("1", "ar", "", "", "?\n", "مجال", references=("مجال",))
    assert score_by_language("مج", arabic) == {"f1": 1, "em": 1, "f1_fixed": 0, "em_fixed": 0}


def test_a_language_that_the_script_lacks_has_no_articles():
    assert normalise("Le chat, the cat!", "fr") == "le chat the cat"
