"""Prompts in, answers out: what a person asks an adapted model."""

from collections.abc import Sequence
from dataclasses import replace

from jaxprefix.evaluation.engine import predict, questions
from jaxprefix.evaluation.model import Model
from jaxprefix.tasks.metrics import score_generated
from jaxprefix.tasks.own import prompt_end
from jaxprefix.tasks.task import Example, Task


def answers(model: Model, prompts: Sequence[str], adapters: Sequence[int], longest: int, batch: int) -> list[str]:
    """One greedy answer a prompt, in order, of at most `longest` tokens; prompt i asks adapter `adapters[i]`.

    ValueError for prompts that are longer than the model's rows.
    """
    task = Task("prompts", (), "", lambda *_: [], lambda *_: None, (), score_generated, longest)
    examples = [
        Example(str(place), "", before="", context="", after=prompt_end(prompt), response="", references=("",))
        for place, prompt in enumerate(prompts)
    ]
    asked = questions(model, task, examples)
    if len(asked) < len(prompts):
        raise ValueError(
            f"{len(prompts) - len(asked)} of {len(prompts)} prompts are longer than the run's {model.max_length} "
            "tokens; shorten them"
        )
    asked = [replace(each, adapter=adapter) for each, adapter in zip(asked, adapters, strict=True)]
    found = {question.example.id: row for part in predict(model, task, asked, batch) for question, row in part}
    return [found[example.id]["prediction"] for example in examples]
