"""XQuAD for lm-evaluation-harness: what tasks/xquad/*.yaml name, with the prompt and the scores of our own evaluation.

The harness's own `xquad` imports a module that transformers 5 no longer has.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxprefix.tasks.task import Example
from jaxprefix.tasks.xquad import XQUAD


def _example(row: Mapping[str, Any]) -> Example:
    example = XQUAD.example(row, "")  # neither prompt nor scores depend on the language
    assert example, "every row of XQuAD has an answer"
    return example


def prompt(row: Mapping[str, Any]) -> str:
    return _example(row).prompt


def answer(row: Mapping[str, Any]) -> str:
    """What a few-shot example says."""
    return _example(row).response


def scores(row: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """F1, exact match, and whether nothing in the generated text could be read as an answer."""
    found = XQUAD.answer(results[0])
    return XQUAD.score(found, _example(row)) | {"parse_failure": float(not found)}
