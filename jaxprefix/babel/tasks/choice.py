"""babel-choice: a question about a passage with four answers; the likeliest of their letters, as in Belebele."""

from random import Random

from jaxprefix.babel.language import Language
from jaxprefix.babel.tasks.shared import LEAKS, NOTE, loader
from jaxprefix.babel.world import LANGUAGES, Instance, answer, draw_facts, passage, question
from jaxprefix.tasks.fields import text_of
from jaxprefix.tasks.metrics import score_choice
from jaxprefix.tasks.prompts import LETTERS
from jaxprefix.tasks.task import Example, Row, Task


def draw(random: Random) -> Instance:
    """Four facts of one kind, one of which is asked for: the passage has every option in it."""
    facts = draw_facts(random, 4, kinds=1)
    return Instance(facts, (random.choice(facts),))


def say(language: Language, instance: Instance) -> dict[str, str]:
    """The row {"passage", "question", "option_A" to "option_D", "letter"}; the options' order is the instance's own."""
    (asked,) = instance.asked
    ordered = Random(repr(instance)).sample(instance.facts, 4)
    options = {f"option_{letter}": answer(language, fact) for letter, fact in zip(LETTERS, ordered, strict=True)}
    return {
        "passage": passage(language, instance.facts),
        "question": question(language, asked),
        **options,
        "letter": LETTERS[ordered.index(asked)],
    }


def example(row: Row, language: str) -> Example:
    """The letters are scored."""
    options = "\n".join(f"{letter}: {text_of(row, f'option_{letter}')}" for letter in LETTERS)
    return Example(
        id=text_of(row, "id"),
        language=language,
        before="Answer the question with a letter.\nPassage: ",
        context=text_of(row, "passage"),
        after=f"\nQuestion: {text_of(row, 'question')}\n{options}\nAnswer:\n",
        response=text_of(row, "letter"),
        choices=LETTERS,
    )


BABEL_CHOICE = Task(
    name="babel-choice",
    languages=LANGUAGES,
    split="test",
    load=loader("babel-choice", draw, say),
    example=example,
    metrics=("accuracy",),
    score=score_choice,
    evaluated_on=("babel-choice",),
    leaks=LEAKS,
    note=NOTE,
)
