"""MultiNLI (Williams et al., arXiv:1704.05426): English pairs of sentences; evaluated on XNLI."""

import random
from pathlib import Path

from jaxprefix.io.hub import dataset_rows
from jaxprefix.tasks.columns import with_ids
from jaxprefix.tasks.metrics import score_choice
from jaxprefix.tasks.prompts import premise_hypothesis
from jaxprefix.tasks.task import Row, Task, check_languages

# https://huggingface.co/datasets/nyu-mll/multi_nli
REVISION = "da70db2af9d09693783c3320c4249840212ee221"
# The study trains on a sample of 100K of the 392,702 rows (arXiv:2510.24619); the seed is ours.
SAMPLED_ROWS = 100_000
SAMPLE_SEED = 0


def load(language: str, split: str, data: Path | None) -> list[Row]:
    """The rows of a split, or always the same 100,000 of them; InputError if they could not be loaded."""
    check_languages(MNLI, (language,))
    rows = with_ids(dataset_rows("nyu-mll/multi_nli", "default", split, REVISION, data))
    if len(rows) <= SAMPLED_ROWS:
        return rows
    return random.Random(SAMPLE_SEED).sample(rows, SAMPLED_ROWS)


MNLI = Task(
    name="mnli",
    languages=("en",),
    split="train",
    load=load,
    example=premise_hypothesis,
    metrics=("accuracy",),
    score=score_choice,
    eval_tasks=("xnli",),
)
