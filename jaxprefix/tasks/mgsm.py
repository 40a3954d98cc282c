"""MGSM (Shi et al., arXiv:2210.03057): the first 250 problems of GSM8K's test split, translated into ten languages."""

from pathlib import Path

from jaxprefix.io.hub import dataset_rows
from jaxprefix.tasks.columns import row_error, value_of, with_ids
from jaxprefix.tasks.metrics import harness
from jaxprefix.tasks.metrics.numbers import find_number, score_number
from jaxprefix.tasks.prompts import NEXT_PROBLEM, word_problem
from jaxprefix.tasks.task import Example, Row, Task, check_languages

# https://huggingface.co/datasets/juletxara/mgsm is a script, which is not run; this is the Hub's copy of its rows.
REVISION = "refs/convert/parquet"


def load(language: str, split: str, data: Path | None) -> list[Row]:
    """The rows of one language, in the same order for all languages; InputError if they could not be loaded."""
    check_languages(MGSM, (language,))
    return with_ids(dataset_rows("juletxara/mgsm", language, split, REVISION, data))


def example(row: Row, language: str) -> Example:
    """The problem of a row {"question", "answer_number"}."""
    number = value_of(row, "answer_number")
    if isinstance(number, bool) or not isinstance(number, int | float | str) or find_number(f"{number}") != f"{number}":
        raise row_error(row, f"'answer_number' is {number!r}; expected a number")
    return word_problem(row, language, "", f"{number}")


MGSM = Task(
    name="mgsm",
    languages=("bn", "de", "en", "es", "fr", "ja", "ru", "sw", "te", "th", "zh"),
    split="test",
    load=load,
    example=example,
    metrics=("exact_match", *harness.METRICS),
    score=score_number,
    max_new_tokens=400,
    stop=(NEXT_PROBLEM,),
    answer=find_number,
    score_text=harness.score_text,
    note=harness.NOTE,
)
