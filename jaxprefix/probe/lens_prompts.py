"""Prompts whose answers are known in several languages, for the logit lens (Wendler et al., arXiv:2402.10588)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from jaxprefix import tasks
from jaxprefix.errors import InputError
from jaxprefix.evaluation.selection import all_examples, select_languages, spread
from jaxprefix.evaluation.settings import Evaluation
from jaxprefix.inference.model import Model
from jaxprefix.probe.settings import Probe
from jaxprefix.runs.config import RunConfig
from jaxprefix.tasks.encoding import encode
from jaxprefix.tasks.task import Example

TASKS = ("babel-qa", "xquad")


@dataclass(frozen=True)
class LensPrompts:
    """The prompts of n questions in J languages, and the first token of each answer in the pivot and the language."""

    ids: list[list[int]]  # J·n rows: all questions of the first language, then of the next
    tokens: Int[np.ndarray, "J n 2"]  # pivot, language
    counted: Bool[np.ndarray, "J n"]  # the two tokens differ; always true for the pivot itself


def lens_prompts(model: Model, settings: Probe, config: RunConfig, languages: Sequence[str]) -> LensPrompts:
    """The prompts in the languages of the texts; the first is the pivot.

    InputError for another task, a language that it does not have, or questions that differ between languages.
    """
    name = settings.lens_task or ("babel-qa" if config.model is None else "xquad")
    if name not in TASKS:
        raise InputError(f"--lens-task {name!r} has no answers in several languages; expected {', '.join(TASKS)}")
    task = tasks.find(name)
    evaluation = Evaluation(data=settings.data)
    by_language: list[dict[str, Example]] = []
    for code in select_languages(task, ",".join(languages)):
        examples = spread(all_examples(task, code, evaluation, config), settings.limit)
        by_language.append({example.id: example for example in examples})
        if by_language[-1].keys() != by_language[0].keys():
            raise InputError(f"{name} has other questions in {code} than in {languages[0]}; expected the same ids")
    tokenizer, ids, tokens = model.base.tokenizer, [], []
    for examples in by_language:
        for key, example in examples.items():
            row = encode(tokenizer, example, model.max_length, room=1, chat=model.chat)
            if row is None:
                raise InputError(f"question {key!r} does not fit --max-length {model.max_length}; raise it")
            ids.append(row.prompt)
            answers = (by_language[0][key].response, example.response)
            tokens.append([tokenizer.response_ids(answer)[0] for answer in answers])
    first_tokens = np.array(tokens).reshape(len(by_language), -1, 2)
    counted = first_tokens[..., 0] != first_tokens[..., 1]
    counted[0] = True
    return LensPrompts(ids, first_tokens, counted)
