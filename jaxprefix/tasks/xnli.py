"""XNLI (Conneau et al., arXiv:1809.05053): 5,010 pairs of sentences in fifteen languages, labelled as in MultiNLI."""

from pathlib import Path

from jaxprefix.io.hub import dataset_rows
from jaxprefix.tasks.columns import with_ids
from jaxprefix.tasks.metrics import score_choice
from jaxprefix.tasks.prompts import premise_hypothesis
from jaxprefix.tasks.task import Row, Task, check_languages

# https://huggingface.co/datasets/facebook/xnli
REVISION = "b8dd5d7af51114dbda02c0e3f6133f332186418e"


def load(language: str, split: str, data: Path | None) -> list[Row]:
    """The rows of one language, in the same order for all languages; InputError if they could not be loaded."""
    check_languages(XNLI, (language,))
    return with_ids(dataset_rows("facebook/xnli", language, split, REVISION, data))


XNLI = Task(
    name="xnli",
    languages=("ar", "bg", "de", "el", "en", "es", "fr", "hi", "ru", "sw", "th", "tr", "ur", "vi", "zh"),
    split="test",
    load=load,
    example=premise_hypothesis,
    cluster="premise",
    metrics=("accuracy",),
    score=score_choice,
    eval_tasks=("xnli",),
    forbidden_splits={"test": "evaluation uses it, and its rows are parallel across languages"},
)
