"""Belebele (Bandarkar et al., arXiv:2308.16884): 900 questions about passages of FLORES in 122 language variants."""

from pathlib import Path

from jaxprefix.io.hub import dataset_rows
from jaxprefix.tasks.columns import with_ids
from jaxprefix.tasks.languages import languages_of
from jaxprefix.tasks.metrics import score_choice
from jaxprefix.tasks.prompts import passage_options
from jaxprefix.tasks.task import Example, Row, Task, check_languages

# https://huggingface.co/datasets/facebook/belebele
REVISION = "75b399394a9803252cfec289d103de462763db7c"


def load(language: str, split: str, data: Path | None) -> list[Row]:
    """The rows of one language, in the same order for all languages; InputError if they could not be loaded."""
    check_languages(BELEBELE, (language,))
    return with_ids(dataset_rows("facebook/belebele", language, split, REVISION, data))


def example(row: Row, language: str) -> Example:
    """The question of a row {"flores_passage", "question", "mc_answer1" to "4", "correct_answer_num"}."""
    return passage_options(row, language, passage="flores_passage", option="mc_answer")


BELEBELE = Task(
    name="belebele",
    languages=tuple(language.flores for language in languages_of("belebele")),
    split="test",
    load=load,
    example=example,
    cluster="passage",
    metrics=("accuracy",),
    score=score_choice,
)
