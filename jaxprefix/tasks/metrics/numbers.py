"""Finds the number that a text gives as its answer, and reads it in any digits and separators.

It accepts what the scripts of GSM8K (arXiv:2110.14168), "#### 1,080", and MGSM (arXiv:2210.03057), "The answer is 18"
or the phrase of a language, accept, with the same result. It also reads native digits, the thousands separators and
decimal commas of other languages, fractions, and the last number of a text that marks none.
"""

import re
import unicodedata
from fractions import Fraction
from functools import cache

from jaxprefix.tasks.task import Example

# "Answer" in MGSM's languages, and in Arabic, Hindi, Portuguese, Italian, Turkish and Vietnamese.
_WORDS = """answer উত্তর antwort respuesta réponse 答え 答案 ответ jibu సమాధానం คำตอบ
            الإجابة الجواب उत्तर resposta risposta cevap đáp"""
_NUMBER = (
    r"(?P<minus>(?<![A-Za-z0-9)\]%])-\$? ?|\$ ?-)?"
    r"(?P<digits>(?:\d+ )?\d+/[1-9]\d*"  # 1/2, 2 1/2
    r"|\d{1,3}(?:[ '\u202f]\d{3})+(?!\d)(?:[.,]\d+)?"  # 1 000 or 1'000
    r"|\d+(?:[.,]\d+)*"  # 1,000.5 or 1.000,5 or 1,00,000
    r"|(?<!\w)\.\d+)"
)
_PLAIN = re.compile(_NUMBER)
_MARKED = re.compile(r"####[^\d\n]{0,24}?" + _NUMBER)
# A word for "answer" counts if a number follows soon on the same line.
_PHRASE = re.compile(rf"(?i:{'|'.join(_WORDS.split())})[^\d\n]{{0,24}}?" + _NUMBER + r"(?P<rest>[^\n]*)")
# Languages with a decimal comma. In these, both "1.000" and "1,000" are a thousand: models write English numbers in any
# language, and no answer of the data sets has three decimals.
_COMMA_LANGUAGES = frozenset("bg de el es fi fr id it nl pl pt ro ru tr uk vi".split())
_GROUPED = re.compile(r"\d{1,3}(?:,\d{3})+|\d{1,2}(?:,\d{2})+,\d{3}")  # the second is South Asian: 1,00,000
_FOLDED = {"−": "-", "－": "-", "٫": ".", "．": ".", "٬": "'", "，": ",", "’": "'", "＇": "'", "％": "%"}
_NARROW_SPACES = "\u00a0\u2007\u2009\u202f"


def find_number(text: str) -> str:
    """The final number of a text, in ASCII digits and with its separators; "" if there is none.

    This is the number after the first "####"; else the number after the last word for "answer" (or after the last "="
    of that line); else the last number. Currency and percent signs are left out.
    """
    folded = "".join(map(_fold, text))
    for pattern in (_MARKED, _PHRASE, _PLAIN):
        matches = [match for match in pattern.finditer(folded) if read_number(_written(match), "en") is not None]
        if matches:
            best = matches[0 if pattern is _MARKED else -1]
            rest = best.groupdict().get("rest") or ""
            total = _PLAIN.search(rest.rpartition("=")[2]) if "=" in rest else None
            return _written(total or best)
    return ""


def _written(match: re.Match[str]) -> str:
    return ("-" if match["minus"] else "") + match["digits"]


@cache
def _fold(letter: str) -> str:
    """Maps decimal digits to ASCII, "½" to " 1/2", currency signs to "$", and separators to a few."""
    category = unicodedata.category(letter)
    if category == "Nd":
        return str(unicodedata.decimal(letter))
    if unicodedata.decomposition(letter).startswith("<fraction>"):
        value = Fraction(unicodedata.numeric(letter)).limit_denominator(10)
        return f" {value.numerator}/{value.denominator}"
    if category == "Sc":
        return "$"
    return "\u202f" if letter in _NARROW_SPACES else _FOLDED.get(letter, letter)


def read_number(written: str, language: str) -> Fraction | None:
    """The value of a result of `find_number`, by the conventions of a language (a BCP-47 code); None if it has none.

    A single separator with three digits after it, as in "1,234", separates thousands if it is a comma or the language
    has decimal commas. Any other single separator, as in "2.5" and "2,5", is a decimal mark.
    """
    sign, digits = (-1, written[1:]) if written.startswith("-") else (1, written)
    match = _PLAIN.fullmatch(digits)
    if match is None or match["minus"]:
        return None
    if "/" in digits:
        whole, _, part = digits.rpartition(" ")
        return sign * (Fraction(whole or 0) + Fraction(part))
    digits = re.sub(r"[ '\u202f]", "", digits)
    decimal = _decimal_mark(digits, language)
    whole, _, part = digits.partition(decimal) if decimal else (digits, "", "")
    grouped = whole.replace(".", ",")
    if "," in grouped and not _GROUPED.fullmatch(grouped):
        return None
    return sign * Fraction(f"{grouped.replace(',', '') or 0}.{part or 0}")


def _decimal_mark(digits: str, language: str) -> str:
    """The decimal mark, "." or ","; "" if there is none."""
    marks = re.findall("[.,]", digits)
    if len(marks) == 1:
        thousands = re.fullmatch(r"[1-9]\d{0,2}[.,]\d{3}", digits) and ("," in marks or language in _COMMA_LANGUAGES)
        return "" if thousands else marks[0]
    return marks[-1] if len(set(marks)) == 2 and marks.count(marks[-1]) == 1 else ""


def score_number(answer: str, example: Example) -> dict[str, float]:
    """1 if the answer has the value of a reference, else 0. References use a decimal point."""
    value = read_number(answer, example.language)
    accepted = {read_number(reference, "en") for reference in example.references}
    return {"exact_match": float(value is not None and value in accepted)}
