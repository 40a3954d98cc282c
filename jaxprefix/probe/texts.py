"""Parallel texts: the same sentences in several languages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxprefix import tasks
from jaxprefix.errors import InputError
from jaxprefix.evaluation.selection import spread_indices
from jaxprefix.evaluation.settings import names
from jaxprefix.probe.settings import Probe
from jaxprefix.tasks.columns import filled_text_of, row_error
from jaxprefix.tasks.languages import same_language
from jaxprefix.tasks.plain_texts import read_texts

# The column with the text of a task's rows. Texts that several rows share are taken once.
COLUMNS = {
    "flores": "text",
    "belebele": "flores_passage",
    "xnli": "premise",
    "xquad": "context",
    "babel-qa": "passage",
    "babel-nli": "premise",
}
ENGLISH = "eng_Latn"
LEAST = 8  # sentences; with fewer no statistic means anything, and the estimates of CKA do not exist


@dataclass(frozen=True)
class Texts:
    """n sentences in each language, in the same order. The pivot is the first language."""

    name: str
    by_language: Mapping[str, Sequence[str]]

    @property
    def languages(self) -> tuple[str, ...]:
        return tuple(self.by_language)

    @property
    def pivot(self) -> str:
        return self.languages[0]

    @property
    def count(self) -> int:
        return len(self.by_language[self.pivot])


def parallel_texts(settings: Probe, is_embedded: bool, data: Path | None) -> Texts:
    """The texts of the settings. InputError if they are not parallel, or too few."""
    if settings.text_file:
        name, by_language = str(settings.text_file), _of_file(settings.text_file, settings)
    else:
        name = settings.texts or ("babel-qa" if is_embedded else "flores")
        by_language = _of_task(name, settings, settings.data or data)
    first, *others = by_language
    for language in others:
        if by_language[language].keys() != by_language[first].keys():
            counts = f"{len(by_language[language]):,} texts in {language}, {len(by_language[first]):,} in {first}"
            raise InputError(f"{name} has {counts}; expected the same texts, with the same ids, in every language")
    # A text that several rows share, such as a passage with two questions, is taken once.
    distinct = list({text: index for index, text in reversed(by_language[first].items())}.values())[::-1]
    ids = [distinct[index] for index in spread_indices(distinct, settings.limit)]
    if len(ids) < LEAST:
        raise InputError(f"{name} gives {len(ids)} sentences per language; expected at least {LEAST}")
    return Texts(name, {code: [texts[index] for index in ids] for code, texts in by_language.items()})


def _of_file(path: Path, settings: Probe) -> dict[str, dict[str, str]]:
    """language -> id -> text."""
    by_language: dict[str, dict[str, str]] = {}
    for row in read_texts(path):
        texts = by_language.setdefault(row["language"], {})
        if row["id"] in texts:
            raise row_error(row, f"the id {row['id']!r} occurs twice in {row['language']}; expected it once")
        texts[row["id"]] = row["text"]
    return {code: by_language[code] for code in _choose(settings, tuple(by_language), str(path))}


def _of_task(name: str, settings: Probe, data: Path | None) -> dict[str, dict[str, str]]:
    """language -> id -> text."""
    if name not in COLUMNS:
        raise InputError(f"--texts {name!r} is unknown; expected {', '.join(COLUMNS)}")
    task = tasks.find(name)
    codes = _choose(settings, (ENGLISH, *task.languages) if name == "flores" else task.languages, name)

    def read(code: str) -> dict[str, str]:
        # FLORES translates from English, which is a column of every language.
        from_english = name == "flores" and code == ENGLISH
        rows = task.load(codes[1] if from_english else code, settings.split or task.split, data)
        return {str(row["id"]): filled_text_of(row, "english" if from_english else COLUMNS[name]) for row in rows}

    return {code: read(code) for code in codes}


def _choose(settings: Probe, known: Sequence[str], name: str) -> list[str]:
    """The codes of the languages, the pivot first. InputError for an unknown one, or fewer than two."""
    wanted = [settings.pivot, *(names(settings.languages) if settings.languages else known)]
    codes = [next((code for code in known if same_language(code, given)), given) for given in wanted]
    chosen = list(dict.fromkeys(codes))
    if unknown := [code for code in chosen if code not in known]:
        flag = "--pivot" if unknown[0] == codes[0] else "--languages"
        raise InputError(f"{flag}: {name} has no language {unknown[0]!r}; it has {', '.join(known)}")
    if len(chosen) < 2:
        raise InputError(f"{', '.join(chosen)} is one language; give at least two, such as --languages en,de,sw")
    return chosen
