"""XL-Sum (Hasan et al., 2021, aclanthology.org/2021.findings-acl.413): BBC articles with one-sentence summaries."""

from pathlib import Path

from jaxprefix.io.hub import dataset_rows
from jaxprefix.tasks.columns import filled_text_of, text_of
from jaxprefix.tasks.metrics import first_line
from jaxprefix.tasks.metrics.texts import score_summary
from jaxprefix.tasks.task import Example, Row, Task, check_languages

# https://huggingface.co/datasets/csebuetnlp/xlsum is a script, which is not run; this is the Hub's copy of its rows.
REVISION = "refs/convert/parquet"
_PAIRS = """am:amharic ar:arabic az:azerbaijani bn:bengali my:burmese zh:chinese_simplified
    zh-Hant:chinese_traditional en:english fr:french gu:gujarati ha:hausa hi:hindi ig:igbo id:indonesian ja:japanese
    rn:kirundi ko:korean ky:kyrgyz mr:marathi ne:nepali om:oromo ps:pashto fa:persian pcm:pidgin pt:portuguese
    pa:punjabi ru:russian gd:scottish_gaelic sr:serbian_cyrillic sr-Latn:serbian_latin si:sinhala so:somali
    es:spanish sw:swahili ta:tamil te:telugu th:thai ti:tigrinya tr:turkish uk:ukrainian ur:urdu uz-Cyrl:uzbek
    vi:vietnamese cy:welsh yo:yoruba"""
CONFIGS = {code: config for code, _, config in (pair.partition(":") for pair in _PAIRS.split())}


def load(language: str, split: str, data: Path | None) -> list[Row]:
    """The rows of one language; InputError if they could not be loaded."""
    check_languages(XLSUM, (language,))
    return list(dataset_rows("csebuetnlp/xlsum", CONFIGS[language], split, REVISION, data))


def example(row: Row, language: str) -> Example:
    """The article to summarise, from a row {"id", "text", "summary"}."""
    summary = " ".join(filled_text_of(row, "summary").split())
    return Example(
        id=text_of(row, "id"),
        language=language,
        before="Summarise the article in one sentence, in the language of the article.\n\nArticle: ",
        context=text_of(row, "text"),
        after="\n\nSummary:\n",
        response=summary,
        references=(summary,),
    )


XLSUM = Task(
    name="xlsum",
    languages=tuple(CONFIGS),
    split="test",
    load=load,
    example=example,
    metrics=("rougeL", "rouge1", "rouge2"),
    score=score_summary,
    max_new_tokens=128,
    answer=first_line,
    eval_tasks=("xlsum",),
    forbidden_splits={"test": "evaluation uses it"},
    note="ROUGE uses the word segmentation of this project, which is the same for every language and has no stemming.",
)
