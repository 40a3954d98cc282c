"""One table of the languages that the benchmarks have: codes, script, family, and how much data there is of each.

`languages.tsv` joins public sources, each corrected where it errs:

- codes, names, scripts and families: the table of Belebele (arXiv:2308.16884, github.com/facebookresearch/belebele).
  Corrected: nya and tso are Atlantic-Congo, not Afro-Asiatic; hat is a French creole, not Atlantic-Congo; luo is
  Nilotic; its ary_arab is ary_Arab.
  Families are Glottolog's (a creole has that of its words; Tai-Kadai is its name of Kra-Dai).
- what Belebele lacks: XCOPA's Quechua (its variety is Eastern Apurímac, FLORES has Ayacucho: the row is both), and
  XL-Sum's Welsh, Scottish Gaelic, Rundi, Nigerian Pidgin, Serbian in Latin and Uzbek in Cyrillic letters.
- resource: the class 0 (nothing) to 5 (most) of Joshi et al. 2020 (arXiv:2004.09095), by name from their list
  lang2tax (microsoft.github.io/linguisticdiversity/assets/lang2tax.txt), as github.com/MaLA-LM/LangResourceAtlas copies
  it: all names of the classes 2 to 5, and most of 0 and 1. Of several names of one language ("haitian" 2, "haitian
  creole" 0; "fula" 1, "fulfulde" 0) the highest class counts. A language in other letters than its own has its class.
  Empty where the list has neither the language nor the larger one that its name belongs to: acm, apc, ars and ary (the
  class 5 of Arabic is the standard language's; Egyptian has its own, 3), kac, kea and luo.
- benchmarks: the tasks that have the language; tests hold that this agrees with them.
"""

from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True)
class Language:
    """A language in one script."""

    flores: str
    """The FLORES code, or what it would be: ISO 639-3 and ISO 15924, as in deu_Latn."""
    bcp47: str
    """The shortest BCP-47 tag: de."""
    name: str
    script: str
    """ISO 15924."""
    family: str
    resource: int | None
    """The class of Joshi et al. 2020, 0 to 5; None where they do not list the language."""
    benchmarks: tuple[str, ...]
    """Names of the tasks that have it."""


def _read() -> tuple[Language, ...]:
    lines = (files("jaxprefix.tasks") / "languages.tsv").read_text(encoding="utf-8").splitlines()
    return tuple(_language(*line.split("\t")) for line in lines[1:])


def _language(flores: str, bcp47: str, name: str, script: str, family: str, resource: str, benchmarks: str) -> Language:
    level = int(resource) if resource else None
    return Language(flores, bcp47, name, script, family, level, tuple(benchmarks.split()))


LANGUAGES = _read()
_BY_CODE = {code: language for language in LANGUAGES for code in (language.flores, language.bcp47) if code}


def find_language(code: str) -> Language | None:
    """The language of a FLORES code (deu_Latn) or a BCP-47 tag (de); None for any other text."""
    return _BY_CODE.get(code)


def same_language(one: str, other: str) -> bool:
    """Whether two codes are equal, or of one language in one script, as en and eng_Latn are."""
    return one == other or (find_language(one) is not None and find_language(one) is find_language(other))


def languages_of(task: str) -> tuple[Language, ...]:
    """The languages that the table names for a task, in its order."""
    return tuple(language for language in LANGUAGES if task in language.benchmarks)
