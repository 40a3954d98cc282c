"""XQuAD for lm-evaluation-harness: the functions that tasks/xquad/*.yaml name.

Prompts and scores are those of our own evaluation. The harness's own `xquad` imports a module that transformers 5 no
longer has.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxprefix.tasks.task import Example
from jaxprefix.tasks.xquad import XQUAD


def _example(row: Mapping[str, Any]) -> Example:
    example = XQUAD.example(row, "")  # prompt and scores do not depend on the language
    assert example, "every row of XQuAD has an answer"
    return example


def prompt(row: Mapping[str, Any]) -> str:
    return _example(row).prompt


def answer(row: Mapping[str, Any]) -> str:
    """The answer of a few-shot example."""
    return _example(row).response


def scores(row: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """F1, exact match, and 1 for parse_failure if the generated text contains no answer."""
    parsed = XQUAD.answer(results[0])
    return XQUAD.score(parsed, _example(row)) | {"parse_failure": float(not parsed)}
