"""FLORES+ (NLLB Team, arXiv:2207.04672; openlanguagedata.org): sentences to translate from English into a language.

This direction measures whether the model can write the language. A model that can only read it does well into English.
"""

from pathlib import Path

from jaxprefix.errors import InputError
from jaxprefix.io.hub import dataset_rows
from jaxprefix.io.rows import Row as LocatedRow
from jaxprefix.tasks.columns import filled_text_of, text_of
from jaxprefix.tasks.languages import languages_of
from jaxprefix.tasks.metrics import first_line
from jaxprefix.tasks.metrics.texts import corpus_translation, score_translation
from jaxprefix.tasks.task import Example, Row, Task, check_languages

# https://huggingface.co/datasets/openlanguagedata/flores_plus is gated: accept its licence there.
DATASET = "openlanguagedata/flores_plus"
REVISION = None
NAMES = {language.flores: language.name for language in languages_of("flores")}
# Codes of FLORES-200 that Belebele keeps and FLORES+ has replaced (its change log, 2.0-rc.1 and 2.0-rc.2).
RENAMED = {
    "apc_Arab": "apc_Arab_nort3139",
    "est_Latn": "ekk_Latn",
    "grn_Latn": "gug_Latn",
    "tgl_Latn": "fil_Latn",
    "zho_Hans": "cmn_Hans",
    "zho_Hant": "cmn_Hant",
}


def load(language: str, split: str, data: Path | None) -> list[Row]:
    """The sentences of one language and of English. InputError if they could not be loaded or their ids differ."""
    check_languages(FLORES, (language,))
    config = RENAMED.get(language, language)
    rows, english = (dataset_rows(DATASET, name, split, REVISION, data) for name in (config, "eng_Latn"))
    english_by_id = {str(row.get("id")): row for row in english}
    unmatched = [row for row in rows if str(row.get("id")) not in english_by_id]
    if unmatched:
        raise InputError(f"{unmatched[0].location}: no sentence of eng_Latn has the id {unmatched[0].get('id')!r}")
    return [_pair(row, english_by_id[str(row["id"])]) for row in rows]


def _pair(row: LocatedRow, english: Row) -> Row:
    columns = {"id": str(row["id"]), "text": filled_text_of(row, "text"), "english": filled_text_of(english, "text")}
    return LocatedRow(columns, row.source, row.number)


def example(row: Row, language: str) -> Example:
    """The sentence to translate, from a row {"id", "text", "english"}."""
    return Example(
        id=text_of(row, "id"),
        language=language,
        before=f"Translate the sentence into {NAMES[language]}. Write the translation alone, on one line.\n\n",
        context="",
        after=f"Sentence: {text_of(row, 'english')}\nTranslation:\n",
        response=text_of(row, "text"),
        references=(text_of(row, "text"),),
    )


FLORES = Task(
    name="flores",
    languages=tuple(NAMES),
    split="devtest",
    load=load,
    example=example,
    metrics=("chrf", "bleu"),
    score=score_translation,
    max_new_tokens=256,
    answer=first_line,
    corpus_metrics=corpus_translation,
    train_split="dev",
    eval_tasks=("flores",),
    forbidden_splits={"devtest": "evaluation uses it, and its rows are parallel across languages"},
    note="From English. BLEU uses the word segmentation of this project, so it cannot be compared with published "
    "figures; chrF can.",
)
