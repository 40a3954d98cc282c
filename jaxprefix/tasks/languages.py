"""The table of the languages of all benchmarks: codes, script, family, and resources.

`languages.tsv` combines public sources and corrects their errors:

- codes, names, scripts and families: the table of Belebele (arXiv:2308.16884, github.com/facebookresearch/belebele).
  Corrected: nya and tso are Atlantic-Congo, not Afro-Asiatic; hat is a French creole, not Atlantic-Congo; luo is
  Nilotic; its ary_arab is ary_Arab.
  Families follow Glottolog (a creole has the family of its vocabulary; Tai-Kadai is its name for Kra-Dai).
- missing in Belebele: Quechua of XCOPA (its variety is Eastern Apurímac, that of FLORES Ayacucho; the row is for
  both), and, of XL-Sum, Welsh, Scottish Gaelic, Rundi, Nigerian Pidgin, Serbian in Latin and Uzbek in Cyrillic letters.
- resource: the class 0 (nothing) to 5 (most) of Joshi et al. 2020 (arXiv:2004.09095), by name from their list
  lang2tax (microsoft.github.io/linguisticdiversity/assets/lang2tax.txt), in the copy of
  github.com/MaLA-LM/LangResourceAtlas: all names of the classes 2 to 5, and most of 0 and 1. If a language has several
  names ("haitian" 2, "haitian creole" 0; "fula" 1, "fulfulde" 0), the highest class counts. A language in an unusual
  script has the same class. The column is empty if the list has neither the language nor the larger one
  that its name belongs to: acm, apc, ars and ary (class 5 of Arabic is that of the standard language; Egyptian has its
  own, 3), kac, kea and luo.
- words: the words of the language, in this script, in the training part of FineWeb2 (Penedo et al. 2025,
  arXiv:2506.20920), the pages of CommonCrawl from 2013 to 2024 that are not in English, after filters and
  deduplication: fineweb2-language-distribution.csv of github.com/huggingface/fineweb-2, revision d0defb2 of October
  2025, licence ODC-By. It approximates what a model has read of a language. FineWeb2's codes are others for Estonian
  (ekk), Guarani (gug), Tagalog (fil) and Persian (fas); its Chinese (cmn_Hani) is of both scripts together. The column
  is empty for English, which FineWeb2 leaves out, and for Sinhala in Latin letters, which it does not list.
- benchmarks: the tasks that include the language. Tests compare this with the tasks.
"""

from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True)
class Language:
    """A language in one script."""

    flores: str
    """The FLORES code, or one built in the same way from ISO 639-3 and ISO 15924: deu_Latn."""
    bcp47: str
    """The shortest BCP-47 tag: de."""
    name: str
    script: str
    """ISO 15924."""
    family: str
    resource: int | None
    """The class of Joshi et al. 2020, 0 to 5; None if they do not list the language."""
    words: int | None
    """Its words in FineWeb2, as an estimate of the text for pretraining; None for English or if it is not listed."""
    benchmarks: tuple[str, ...]
    """Names of the tasks that include it."""


def _read() -> tuple[Language, ...]:
    lines = (files("jaxprefix.tasks") / "languages.tsv").read_text(encoding="utf-8").splitlines()
    return tuple(_language(*line.split("\t")) for line in lines[1:])


def _language(
    flores: str, bcp47: str, name: str, script: str, family: str, resource: str, words: str, benchmarks: str
) -> Language:
    resource_class, words_known = (int(cell) if cell else None for cell in (resource, words))
    return Language(flores, bcp47, name, script, family, resource_class, words_known, tuple(benchmarks.split()))


LANGUAGES = _read()
_BY_CODE = {code: language for language in LANGUAGES for code in (language.flores, language.bcp47) if code}


def find_language(code: str) -> Language | None:
    """The language with this FLORES code (deu_Latn) or BCP-47 tag (de); None if there is none."""
    return _BY_CODE.get(code)


def same_language(one: str, other: str) -> bool:
    """Whether two codes are equal or mean the same language in the same script, as en and eng_Latn do."""
    return one == other or (find_language(one) is not None and find_language(one) is find_language(other))


def languages_of(task: str) -> tuple[Language, ...]:
    """The languages of a task, in the order of the table."""
    return tuple(language for language in LANGUAGES if task in language.benchmarks)
