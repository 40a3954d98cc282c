"""XQuAD (Artetxe et al., arXiv:1910.11856): 1,190 questions of SQuAD's validation split in twelve languages."""

from pathlib import Path

from jaxprefix.io.hub import dataset_rows
from jaxprefix.tasks.metrics import first_line, score_generated
from jaxprefix.tasks.prompts import passage_question
from jaxprefix.tasks.task import Row, Task, check_languages

# https://huggingface.co/datasets/google/xquad
REVISION = "51adfef1c1287aab1d2d91b5bead9bcfb9c68583"


def load(language: str, split: str, data: Path | None) -> list[Row]:
    """The rows of one language; InputError if they could not be loaded."""
    check_languages(XQUAD, (language,))
    return list(dataset_rows("google/xquad", f"xquad.{language}", split, REVISION, data))


XQUAD = Task(
    name="xquad",
    languages=("ar", "de", "el", "en", "es", "hi", "ro", "ru", "th", "tr", "vi", "zh"),
    split="validation",
    load=load,
    example=passage_question,
    cluster="passage",
    metrics=("f1", "em"),
    score=score_generated,
    max_new_tokens=32,
    answer=first_line,
    note="F1 splits words at spaces. In XQuAD, 92% of the answers in zh and 70% in th are a single word in this sense, "
    "so F1 is close to exact match there.",
)
