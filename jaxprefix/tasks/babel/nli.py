"""babel-nli: whether a passage entails a claim, contradicts it, or neither; one of three words, as in XNLI."""

from random import Random

from jaxprefix.tasks.babel.language import Language
from jaxprefix.tasks.babel.shared import LEAKS, NOTE, loader
from jaxprefix.tasks.babel.world import LANGUAGES, Instance, draw_claim, draw_facts, passage, statement, verdict
from jaxprefix.tasks.columns import text_of
from jaxprefix.tasks.metrics import score_choice
from jaxprefix.tasks.task import Example, Row, Task

LABELS = ("true", "false", "unknown")
"""In the order of the verdicts `world.TRUE`, `FALSE`, `UNKNOWN`."""


def draw(random: Random) -> Instance:
    """Two or three facts and a claim; the three verdicts are equally likely."""
    target = random.randrange(3)
    while True:
        facts = draw_facts(random, random.choice((2, 3)))
        if claim := draw_claim(random, facts, target):
            return Instance(facts, (claim,))


def say(language: Language, instance: Instance) -> dict[str, str]:
    """The row {"premise", "hypothesis", "label"}."""
    (claim,) = instance.asked
    return {
        "premise": passage(language, instance.facts),
        "hypothesis": statement(language, claim),
        "label": LABELS[verdict(instance.facts, claim)],
    }


def example(row: Row, language: str) -> Example:
    """Nothing is cut."""
    return Example(
        id=text_of(row, "id"),
        language=language,
        before="Does the premise say it? Answer true, false or unknown.\n",
        context="",
        after=f"Premise: {text_of(row, 'premise')}\nHypothesis: {text_of(row, 'hypothesis')}\nAnswer:\n",
        response=text_of(row, "label"),
        choices=LABELS,
    )


BABEL_NLI = Task(
    name="babel-nli",
    languages=LANGUAGES,
    split="test",
    load=loader("babel-nli", draw, say),
    example=example,
    metrics=("accuracy",),
    score=score_choice,
    eval_tasks=("babel-nli",),
    forbidden_splits=LEAKS,
    note=NOTE,
)
