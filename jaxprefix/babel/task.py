"""The tasks of the embedded world, in the form of any benchmark.

One Task serves both ends: `split` is what evaluation reads, and whoever trains asks `load` for "train".
"""

from pathlib import Path

from jaxprefix.babel.world import LANGUAGES, SPLITS, documents, rows
from jaxprefix.tasks.metrics import score_generated
from jaxprefix.tasks.task import Example, Row, Task, check_languages, text_of

ROWS = {"train": 2000, "validation": 200, "test": 100}
"""Rows a language in each split; ids agree across languages."""
TEXT_ROWS, TEXT_LENGTH = 50_000, 340  # pretraining rows, of at least so many characters: about 100 tokens each
DOCUMENT_BREAK = "</s><s>"  # the end of one document and the start of the next, as tokens


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
    evaluated_on=("babel-qa",),
    note="A toy world: its figures say nothing about the real languages. F1 counts words between spaces, "
    "so in zh it is close to exact match.",
)


def load_text(language: str, split: str, data: Path | None) -> list[Row]:
    """Pretraining rows, made here: documents of all languages by their weights, strung together to about one length."""
    check_languages(BABEL_TEXT, (language,))
    if split != "train":
        raise ValueError(f"task {BABEL_TEXT.name} has no split {split!r}; it has train")
    source, found = documents(seed=0), []
    while len(found) < TEXT_ROWS:
        row = next(source)
        while len(row) < TEXT_LENGTH:
            row += DOCUMENT_BREAK + next(source)
        found.append({"id": str(len(found)), "text": row})
    return found


def text(row: Row, language: str) -> Example:
    """No prompt: every token of the text is learnt."""
    return Example(id=row["id"], language=language, before="", context="", after="", response=row["text"])


BABEL_TEXT = Task(
    name="babel-text",
    languages=("en",),
    split="train",
    load=load_text,
    example=text,
    metrics=("f1", "em"),
    score=score_generated,
    evaluated_on=(BABEL_QA.name,),
    note="What the embedded model is pretrained on.",
)

TASKS = (BABEL_QA, BABEL_TEXT)
