"""babel-qa: a question that a span of the passage answers; the answer is generated, as in XQuAD."""

from random import Random

from jaxprefix.tasks.babel.language import Language
from jaxprefix.tasks.babel.shared import LEAKS, NOTE, loader
from jaxprefix.tasks.babel.world import LANGUAGES, Instance, answer, draw_facts, passage, question
from jaxprefix.tasks.columns import text_of
from jaxprefix.tasks.metrics import first_line, score_generated
from jaxprefix.tasks.task import Example, Row, Task


def draw(random: Random) -> Instance:
    """Three or four facts and a question about one of them."""
    facts = draw_facts(random, random.choice((3, 4)))
    return Instance(facts, (random.choice(facts),))


def say(language: Language, instance: Instance) -> dict[str, str]:
    """The row {"passage", "question", "answer"}."""
    (fact,) = instance.asked
    return {
        "passage": passage(language, instance.facts),
        "question": question(language, fact),
        "answer": answer(language, fact),
    }


def example(row: Row, language: str) -> Example:
    """The prompt is short because the embedded model is small."""
    return Example(
        id=text_of(row, "id"),
        language=language,
        before="Read the passage and answer with a few words from it.\nPassage: ",
        context=text_of(row, "passage"),
        after=f"\nQuestion: {text_of(row, 'question')}\nAnswer:\n",
        response=text_of(row, "answer"),
        references=(text_of(row, "answer"),),
    )


BABEL_QA = Task(
    name="babel-qa",
    languages=LANGUAGES,
    split="test",
    load=loader("babel-qa", draw, say),
    example=example,
    metrics=("f1", "em"),
    score=score_generated,
    max_new_tokens=24,
    answer=first_line,
    eval_tasks=("babel-qa",),
    forbidden_splits=LEAKS,
    note=f"{NOTE} F1 splits words at spaces, so in zh, ja and th it is close to exact match.",
)
