"""The tasks of the embedded world, in the form of any benchmark.

One Task serves both ends: `split` is what evaluation reads, and whoever trains asks `load` for "train".
"""

from itertools import islice
from pathlib import Path

from jaxprefix.babel.world import LANGUAGES, SPLITS, lessons, rows
from jaxprefix.tasks.fields import text_of
from jaxprefix.tasks.metrics import first_line, score_generated
from jaxprefix.tasks.task import Example, Row, Task, check_languages

ROWS = {"train": 2000, "validation": 200, "test": 100}
"""Rows a language in each split; ids agree across languages."""
TEXT_ROWS = 150_000
"""Documents that the embedded model is pretrained on."""


def load(language: str, split: str, data: Path | None) -> list[Row]:
    """The rows of a split, made here: a local mirror is not read. ValueError for an unknown language or split."""
    check_languages(BABEL_QA, (language,))
    if split not in ROWS:
        raise ValueError(f"task {BABEL_QA.name} has no split {split!r}; it has {', '.join(SPLITS)}")
    return list(rows(language, split, ROWS[split]))


def passage_question(row: Row, language: str) -> Example:
    """A question that a stretch of the passage answers; short, since the model of this world is small."""
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
    load=load,
    example=passage_question,
    metrics=("f1", "em"),
    score=score_generated,
    max_new_tokens=16,
    answer=first_line,
    evaluated_on=("babel-qa",),
    leaks={"test": "it is what evaluation asks, and its rows say the same in every language"},
    note="A toy world: its figures say nothing about the real languages. F1 counts words between spaces, "
    "so in zh it is close to exact match.",
)


def load_text(language: str, split: str, data: Path | None) -> list[Row]:
    """Pretraining documents of all languages, by their weights, made here."""
    check_languages(BABEL_TEXT, (language,))
    if split != "train":
        raise ValueError(f"task {BABEL_TEXT.name} has no split {split!r}; it has train")
    found = islice(lessons(seed=0), TEXT_ROWS)
    return [{"id": str(place), "given": lesson.given, "told": lesson.told} for place, lesson in enumerate(found)]


def lesson_example(row: Row, language: str) -> Example:
    """The given part is read and the rest learnt: nobody can foretell who will be where."""
    return Example(id=row["id"], language=language, before=row["given"], context="", after="", response=row["told"])


BABEL_TEXT = Task(
    name="babel-text",
    languages=("en",),
    split="train",
    load=load_text,
    example=lesson_example,
    metrics=("f1", "em"),
    score=score_generated,
    evaluated_on=(BABEL_QA.name,),
    note="What the embedded model is pretrained on.",
)

TASKS = (BABEL_QA, BABEL_TEXT)
