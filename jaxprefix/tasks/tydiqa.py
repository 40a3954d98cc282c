"""TyDiQA-GoldP (Clark et al., arXiv:2003.05002): its 3,696 English training rows, in the form of SQuAD's."""

from pathlib import Path

from jaxprefix.hub import dataset_rows
from jaxprefix.tasks.metrics import score_generated
from jaxprefix.tasks.prompts import passage_question
from jaxprefix.tasks.task import Row, Task, check_languages

# https://huggingface.co/datasets/google-research-datasets/tydiqa
REVISION = "da78f23f9119363459acbaf46bf89426ff26c259"


def load(language: str, split: str, data: Path | None) -> list[Row]:
    """The English rows of a split, which holds all languages; ValueError where there are none."""
    check_languages(TYDIQA, (language,))
    rows = dataset_rows("google-research-datasets/tydiqa", "secondary_task", split, REVISION, data)
    # The set tells a row's language by its id alone: "english-12", "arabic-2387335860751143628-1".
    english: list[Row] = [row for row in rows if str(row.get("id")).startswith("english-")]
    if not english:
        raise ValueError(f"tydiqa split {split!r}: no id among its {len(rows)} rows begins with 'english-'")
    return english


TYDIQA = Task(
    name="tydiqa",
    languages=("en",),
    split="train",
    load=load,
    example=passage_question,
    metrics=("f1", "em"),
    score=score_generated,
    max_new_tokens=32,
    evaluated_on=("xquad",),
)
