"""XCOPA (Ponti et al., arXiv:2005.00333): 500 premises in eleven languages, each with two causes or effects."""

from pathlib import Path

from jaxprefix.io.hub import dataset_rows
from jaxprefix.tasks.columns import filled_text_of, one_of, text_of, with_ids
from jaxprefix.tasks.metrics import score_choice
from jaxprefix.tasks.task import Example, Row, Task, check_languages

# https://huggingface.co/datasets/cambridgeltl/xcopa
REVISION = None
_RELATIONS = {"cause": "cause", "effect": "effect"}


def load(language: str, split: str, data: Path | None) -> list[Row]:
    """The rows of one language, in the same order for all languages; InputError if they could not be loaded."""
    check_languages(XCOPA, (language,))
    return with_ids(dataset_rows("cambridgeltl/xcopa", language, split, REVISION, data))


def example(row: Row, language: str) -> Example:
    """The question of a row {"premise", "question": "cause" or "effect", "choice1", "choice2", "label": 0 or 1}."""
    relation = one_of(row, "question", _RELATIONS)
    choices = filled_text_of(row, "choice1"), filled_text_of(row, "choice2")
    return Example(
        id=text_of(row, "id"),
        language=language,
        before=f"What is the {relation} of what the premise says? "
        "Answer with one sentence in the language of the premise.\n\n",
        context="",
        after=f"Premise: {text_of(row, 'premise')}\n{relation.capitalize()}:\n",
        response=one_of(row, "label", {"0": choices[0], "1": choices[1]}),
        choices=choices,
    )


XCOPA = Task(
    name="xcopa",
    languages=("et", "ht", "id", "it", "qu", "sw", "ta", "th", "tr", "vi", "zh"),
    split="test",
    load=load,
    example=example,
    metrics=("accuracy",),
    score=score_choice,
    train_split="validation",
    eval_tasks=("xcopa",),
    forbidden_splits={"test": "evaluation uses it, and its rows are parallel across languages"},
)
