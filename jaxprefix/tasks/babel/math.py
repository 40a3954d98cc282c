"""babel-math: how much two of three people have together, with the reasoning; the last number counts, as in MGSM."""

from random import Random

from jaxprefix.tasks.babel.language import Language
from jaxprefix.tasks.babel.shared import LEAKS, NOTE, loader
from jaxprefix.tasks.babel.world import LANGUAGES, Instance, draw_amounts, passage, sum_question, total
from jaxprefix.tasks.columns import text_of
from jaxprefix.tasks.metrics.numbers import find_number, score_number
from jaxprefix.tasks.prompts import NEXT_PROBLEM
from jaxprefix.tasks.task import Example, Row, Task


def draw(random: Random) -> Instance:
    """The amounts of three people and a question about two of them."""
    facts = draw_amounts(random, 3)
    one, other = random.sample(facts, 2)
    return Instance(facts, (one, other))


def say(language: Language, instance: Instance) -> dict[str, str]:
    """The row {"problem", "solution", "number"}; the solution is the same in every language."""
    one, other = instance.asked
    number = total(instance.asked).value
    problem = passage(language, instance.facts) + language.space + sum_question(language, one, other)
    return {"problem": problem, "solution": f"{one.value} + {other.value} = {number}", "number": number}


def example(row: Row, language: str) -> Example:
    """The last line of the answer gives the number. Nothing is cut."""
    return Example(
        id=text_of(row, "id"),
        language=language,
        before="Solve the problem and end with the answer.\n",
        context="",
        after=f"Problem: {text_of(row, 'problem')}\nSolution:\n",
        response=f"{text_of(row, 'solution')}\nThe answer is {text_of(row, 'number')}.",
        references=(text_of(row, "number"),),
    )


BABEL_MATH = Task(
    name="babel-math",
    languages=LANGUAGES,
    split="test",
    load=loader("babel-math", draw, say),
    example=example,
    metrics=("exact_match",),
    score=score_number,
    max_new_tokens=24,
    stop=(NEXT_PROBLEM,),
    answer=find_number,
    eval_tasks=("babel-math",),
    forbidden_splits=LEAKS,
    note=NOTE,
)
