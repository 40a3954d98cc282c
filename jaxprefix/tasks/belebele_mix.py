"""Belebele's training set: 67,500 English questions of RACE, SciQ, MultiRC, MCTest, MCScript2.0 and ReClor.

The Hub does not have it. Belebele's script assemble_training_set.py downloads the parts and writes one table with the
columns dataset, split (train or dev), passage_id, question_id, passage, question, answer1 to answer4, correct_answer
and correct_answer_num.
"""

from pathlib import Path

from jaxprefix.errors import InputError
from jaxprefix.io.mirror import named_files
from jaxprefix.io.rows import ENDINGS, read_rows
from jaxprefix.tasks.columns import text_of, value_of, with_ids
from jaxprefix.tasks.metrics import score_choice
from jaxprefix.tasks.prompts import passage_options
from jaxprefix.tasks.task import Example, Row, Task, check_languages

TABLE = "facebook/belebele/belebele_training_set"  # in the mirror; the script chose the name
SPLITS = {"train": "train", "validation": "dev"}


def load(language: str, split: str, data: Path | None) -> list[Row]:
    """The rows of a split. InputError if there is no table; the message says how to make it."""
    check_languages(BELEBELE_MIX, (language,))
    if split not in SPLITS:
        raise InputError(f"task {BELEBELE_MIX.name} has no split {split!r}; it has {', '.join(SPLITS)}")
    files = named_files((data / TABLE).parent, Path(TABLE).name) if data else []
    if not files:
        problem = f"no {data / TABLE}.{{{','.join(ENDINGS)}}}" if data else "give --data DIR"
        raise InputError(
            f"task {BELEBELE_MIX.name} is not on the Hub: {problem}; write DIR/{TABLE}.tsv with "
            "assemble_training_set.py of https://github.com/facebookresearch/belebele"
        )
    rows = with_ids([row for path in files for row in read_rows(path)])
    return [row for row in rows if text_of(row, "split") == SPLITS[split]]


def example(row: Row, language: str) -> Example | None:
    """The question of a row; None if an answer is blank: the CSV reader of the script drops the answer "None"."""
    if not all(value_of(row, f"answer{number}") for number in (1, 2, 3, 4)):
        return None
    return passage_options(row, language, passage="passage", option="answer")


BELEBELE_MIX = Task(
    name="belebele-mix",
    languages=("en",),
    split="validation",
    load=load,
    example=example,
    metrics=("accuracy",),
    score=score_choice,
    eval_tasks=("belebele",),
)
