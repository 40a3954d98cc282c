"""babel-choice: a question about a passage with four answers, all of which occur in it; similar to Belebele."""

from random import Random

from jaxprefix.tasks.babel.language import Language
from jaxprefix.tasks.babel.shared import LEAKS, NOTE, loader
from jaxprefix.tasks.babel.world import LANGUAGES, Instance, answer, draw_facts, passage, question
from jaxprefix.tasks.columns import text_of
from jaxprefix.tasks.metrics import score_choice
from jaxprefix.tasks.task import Example, Row, Task

OPTIONS = ("option_1", "option_2", "option_3", "option_4")


def draw(random: Random) -> Instance:
    """Four facts of one kind and a question about one of them. The passage contains every option."""
    facts = draw_facts(random, 4, kinds=1)
    return Instance(facts, (random.choice(facts),))


def say(language: Language, instance: Instance) -> dict[str, str]:
    """The row {"passage", "question", "option_1" to "option_4", "answer"}; the instance determines the order of the
    options.
    """
    (fact,) = instance.asked
    options = Random(repr(instance)).sample(instance.facts, 4)
    return {
        "passage": passage(language, instance.facts),
        "question": question(language, fact),
        **{name: answer(language, option) for name, option in zip(OPTIONS, options, strict=True)},
        "answer": answer(language, fact),
    }


def example(row: Row, language: str) -> Example:
    """The options are not in the prompt: each is scored as the answer."""
    return Example(
        id=text_of(row, "id"),
        language=language,
        before="Read the passage and choose.\nPassage: ",
        context=text_of(row, "passage"),
        after=f"\nQuestion: {text_of(row, 'question')}\nAnswer:\n",
        response=text_of(row, "answer"),
        choices=tuple(text_of(row, name) for name in OPTIONS),
    )


BABEL_CHOICE = Task(
    name="babel-choice",
    languages=LANGUAGES,
    split="test",
    load=loader("babel-choice", draw, say),
    example=example,
    metrics=("accuracy",),
    score=score_choice,
    eval_tasks=("babel-choice",),
    forbidden_splits=LEAKS,
    note=NOTE,
)
