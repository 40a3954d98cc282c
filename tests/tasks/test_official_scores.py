"""Our scores are those of the official scripts, on real rows and perturbed answers, by digests of their output."""

import json

import official
import pytest
import small

from jaxprefix.tasks.metrics import best, exact_match, f1, mlqa
from jaxprefix.tasks.metrics.numbers import find_number, read_number, score_number
from jaxprefix.tasks.task import Example

DIGESTS = json.loads(official.DIGESTS.read_text(encoding="utf-8"))


@small.needs_rows
@pytest.mark.parametrize(("place", "language"), official.SQUAD_ROWS)
def test_squad(place: str, language: str):
    def score(prediction: str, references: list[str], language: str) -> tuple[float, float]:
        return best(f1, prediction, references), best(exact_match, prediction, references)

    compare("squad", official.answer_digests(small.MIRROR, [(place, language)], score), 11)


@small.needs_rows
@pytest.mark.parametrize(("place", "language"), official.MLQA_ROWS)
def test_mlqa(place: str, language: str):
    def score(prediction: str, references: list[str], language: str) -> tuple[float, float]:
        example = Example("1", language, "", "", "?\n", references[0], references=tuple(references))
        found = mlqa.score_by_language(prediction, example)
        return found["f1"], found["em"]

    compare("mlqa", official.answer_digests(small.MIRROR, [(place, language)], score), 11)


@small.needs_rows
def test_gsm8k():
    """The number of each of 8,792 worked solutions."""

    def extract(text: str) -> str:
        return str(read_number(find_number(text), "en"))

    compare("gsm8k", official.gsm8k_digests(small.MIRROR, extract), 2)


@small.needs_rows
def test_mgsm():
    """Right or wrong, for numbers written as the script can read them."""

    def right(text: str, number: int, language: str) -> bool:
        example = Example("1", language, "", "", "?\n", "", references=(str(number),))
        return score_number(find_number(text), example) == {"exact_match": 1.0}

    compare("mgsm", official.mgsm_digests(small.MIRROR, right), 25)


def compare(script: str, ours, count: int) -> None:
    ours = dict(ours)
    assert len(ours) == count
    assert ours == {name: DIGESTS[script].get(name) for name in ours}
