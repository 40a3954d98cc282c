"""MLQA (Lewis et al., arXiv:1910.07475): questions about passages of Wikipedia, in seven languages."""

from pathlib import Path

from jaxprefix.io.hub import dataset_rows
from jaxprefix.tasks.metrics import first_line
from jaxprefix.tasks.metrics.mlqa import score_by_language
from jaxprefix.tasks.prompts import passage_question
from jaxprefix.tasks.task import Row, Task, check_languages

# https://huggingface.co/datasets/facebook/mlqa is a script, which is not run; this is the Hub's copy of its rows.
REVISION = "refs/convert/parquet"


def load(language: str, split: str, data: Path | None) -> list[Row]:
    """The rows of one language; InputError if they could not be loaded."""
    check_languages(MLQA, (language,))
    return list(dataset_rows("facebook/mlqa", f"mlqa.{language}.{language}", split, REVISION, data))


MLQA = Task(
    name="mlqa",
    languages=("ar", "de", "en", "es", "hi", "vi", "zh"),
    split="test",
    load=load,
    example=passage_question,
    cluster="passage",
    metrics=("f1", "em", "f1_fixed", "em_fixed"),
    score=score_by_language,
    max_new_tokens=32,
    answer=first_line,
    train_split="validation",
    eval_tasks=("mlqa",),
    forbidden_splits={"test": "evaluation uses it, and many of its rows are parallel across languages"},
    note="F1 and exact match follow the script of MLQA, whose rule for Arabic articles also removes letters inside "
    "words; f1_fixed and em_fixed remove the article only at the start of words. In other languages both are equal.",
)
