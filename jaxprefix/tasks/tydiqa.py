"""TyDiQA-GoldP (Clark et al., arXiv:2003.05002): questions in nine languages, in the format of SQuAD."""

from pathlib import Path

from jaxprefix.errors import InputError
from jaxprefix.io.hub import dataset_rows
from jaxprefix.tasks.metrics import first_line, score_generated
from jaxprefix.tasks.prompts import passage_question
from jaxprefix.tasks.task import Row, Task, check_languages

# https://huggingface.co/datasets/google-research-datasets/tydiqa
REVISION = "da78f23f9119363459acbaf46bf89426ff26c259"
# One split has all languages; only the id distinguishes them: "english-12", "arabic-2387335860751143628-1".
PREFIXES = {
    "ar": "arabic",
    "bn": "bengali",
    "en": "english",
    "fi": "finnish",
    "id": "indonesian",
    "ko": "korean",
    "ru": "russian",
    "sw": "swahili",
    "te": "telugu",
}


def load(language: str, split: str, data: Path | None) -> list[Row]:
    """The rows of one language. InputError if there are none."""
    check_languages(TYDIQA, (language,))
    rows = dataset_rows("google-research-datasets/tydiqa", "secondary_task", split, REVISION, data)
    selected: list[Row] = [row for row in rows if _is_of(language, row)]
    if not selected:
        available = ", ".join(code for code in PREFIXES if any(_is_of(code, row) for row in rows))
        prefix = f"{PREFIXES[language]}-"
        raise InputError(
            f"{rows[0].source.removesuffix(':')}: none of its {len(rows)} rows has an id that begins with {prefix!r}; "
            f"choose a language that it has ({available or 'none of tydiqa'})"
        )
    return selected


def _is_of(language: str, row: Row) -> bool:
    return str(row.get("id")).startswith(f"{PREFIXES[language]}-")


TYDIQA = Task(
    name="tydiqa",
    languages=tuple(PREFIXES),
    split="validation",
    load=load,
    example=passage_question,
    cluster="passage",
    metrics=("f1", "em"),
    score=score_generated,
    max_new_tokens=32,
    answer=first_line,
    eval_tasks=("xquad", "tydiqa"),
    forbidden_splits={"validation": "evaluation uses it"},
)
