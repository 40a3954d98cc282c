"""GSM8K (Cobbe et al., arXiv:2110.14168): 7,473 English problems with solutions in words; evaluated on MGSM."""

import re
from pathlib import Path

from jaxprefix.io.hub import dataset_rows
from jaxprefix.tasks.columns import row_error, text_of, with_ids
from jaxprefix.tasks.metrics import harness
from jaxprefix.tasks.metrics.numbers import find_number, score_number
from jaxprefix.tasks.prompts import NEXT_PROBLEM, word_problem
from jaxprefix.tasks.task import Example, Row, Task, check_languages

# https://huggingface.co/datasets/openai/gsm8k
REVISION = "cc7b047b6e5bb11b4f1af84efc572db110a51b3c"
_CALCULATOR = re.compile(r"<<[^>]*>>")  # "48/2 = <<48/2=24>>24": annotations for a calculator


def load(language: str, split: str, data: Path | None) -> list[Row]:
    """The rows of a split; InputError if they could not be loaded, or for a language other than English."""
    check_languages(GSM8K, (language,))
    return with_ids(dataset_rows("openai/gsm8k", "main", split, REVISION, data))


def example(row: Row, language: str) -> Example:
    """The problem of a row {"question", "answer"}; the last line of the answer is "#### 72"."""
    solution, mark, number = _CALCULATOR.sub("", text_of(row, "answer")).rpartition("####")
    if not mark or not find_number(number):
        raise row_error(row, "'answer' does not end with a line \"#### NUMBER\"")
    return word_problem(row, language, solution.strip(), find_number(number))


GSM8K = Task(
    name="gsm8k",
    languages=("en",),
    split="test",
    load=load,
    example=example,
    metrics=("exact_match", *harness.METRICS),
    score=score_number,
    max_new_tokens=400,
    stop=(NEXT_PROBLEM,),
    answer=find_number,
    score_text=harness.score_text,
    eval_tasks=("mgsm",),
    forbidden_splits={"test": "MGSM translates its first 250 rows, so the scores would measure memory"},
)
