"""SQuAD v1.1 (Rajpurkar et al., arXiv:1606.05250): 87,599 English questions; evaluated on XQuAD."""

from pathlib import Path

from jaxprefix.io.hub import dataset_rows
from jaxprefix.tasks.metrics import first_line, score_generated
from jaxprefix.tasks.prompts import passage_question
from jaxprefix.tasks.task import Row, Task, check_languages

# https://huggingface.co/datasets/rajpurkar/squad
REVISION = "7b6d24c440a36b6815f21b70d25016731768db1f"


def load(language: str, split: str, data: Path | None) -> list[Row]:
    """The rows of a split; InputError if they could not be loaded, or for a language other than English."""
    check_languages(SQUAD, (language,))
    return list(dataset_rows("rajpurkar/squad", "plain_text", split, REVISION, data))


SQUAD = Task(
    name="squad",
    languages=("en",),
    split="train",
    load=load,
    example=passage_question,
    metrics=("f1", "em"),
    score=score_generated,
    max_new_tokens=32,
    answer=first_line,
    eval_tasks=("xquad",),
    forbidden_splits={"validation": "XQuAD translates a part of it, so the scores would measure memory"},
)
