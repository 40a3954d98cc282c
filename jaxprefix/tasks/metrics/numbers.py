"""Finds the number that a text gives as its answer, and reads it in any digits and separators.

It accepts what the scripts of GSM8K (arXiv:2110.14168), "#### 1,080", and MGSM (arXiv:2210.03057), "The answer is 18"
or the phrase of a language, accept, with the same result. It also reads native digits, LaTeX, the thousands separators
and decimal commas of other languages, fractions, and the last number of a text that marks none.
"""

import re
import unicodedata
from collections.abc import Iterable
from fractions import Fraction
from functools import cache

from jaxprefix.tasks.metrics.solutions import solution
from jaxprefix.tasks.task import Example

# "Answer" in MGSM's languages, and in Arabic, Hindi, Portuguese, Italian, Turkish and Vietnamese.
_WORDS = r"""answer\b উত্তর antwort\b respuesta\b réponse\b 答え 答案 ответ jibu సమాధానం คำตอบ
             الإجابة الجواب उत्तर resposta risposta cevap đáp"""
# Verbs and particles between such a word and its number.
_LINKS = """is are was be equals ist lautet beträgt es son est sont é è ni равен равно это là
            হল হলো হবে は が 是 为 為 คือ เท่ากับ है هو هي""".split()
_NUMBER = (
    r"(?P<minus>(?<![A-Za-z0-9)\]%])-\$? ?|\$ ?-)?"
    r"(?P<digits>(?:\d+ )?\d+/[1-9]\d*"  # 1/2, 2 1/2
    r"|\d{1,3}(?:[ '\u202f]\d{3})+(?!\d)(?:[.,]\d+)?"  # 1 000 or 1'000
    r"|\d+(?:[.,]\d+)*"  # 1,000.5 or 1.000,5 or 1,00,000
    r"|(?<!\w)\.\d+)"
)
_PLAIN = re.compile(_NUMBER)
_REST = r"(?P<rest>[^\n]*)"
_HASHES = re.compile(r"####(?:[^\w\n]|\b[A-Za-z]{1,3}\b){0,24}?" + _NUMBER + _REST)
_BOXED = re.compile(r"\\boxed\{[^\d\n}]{0,24}?" + _NUMBER + r"(?P<rest>[^\n}]*)")
# A word for "answer" counts if a number follows soon on the same line.
_OTHER = (
    r"(?<!/)(?<!first )(?<!second )(?<!third )(?<!next )(?<!\ban )(?<!\bto )"  # "2 points/answer", "the next answer"
)
_PHRASE = re.compile(rf"(?i:{_OTHER}(?:{'|'.join(_WORDS.split())}))(?P<gap>[^\d\n]{{0,24}}?)" + _NUMBER + _REST)
_LINK = "|".join(rf"\b{link}\b" if link.isalpha() and link.isascii() else link for link in _LINKS)
_SIGN = r"[\s_$\\({\[]*|[^\w\n]*(?:[:=≈—–]|\*\*)[^\w\n]*"
# Between word and number, in a line that ends the solution: "Answer: 18", "The final answer is about 18". Other words
# may say what the answer is to, or make it a verb: "The answer to that is 18", "to answer 2 questions".
_ENDS = re.compile(rf"{_SIGN}|\s*(?:[^\W\d]+\s+){{0,2}}?(?i:{_LINK})\W*(?:[^\W\d]+\W+)?")
_LINKED = re.compile(rf"{_SIGN}|[^,;!?]*(?:(?i:{_LINK})|[:=≈])[^,;!?]*")
_CORRECTION = re.compile(r"(?i)\W*(?:wait|actually|correction|sorry|oops|no,)")
_OPERATOR = r"\s*(?:[-+*/^×÷·x]|\\times|\\cdot|\\div)\s*"
# After the first number of an expression: "16 - 3 = 13", "3 apples * 6 = 18", "2x = 36".
_EXPRESSION = re.compile(rf"(?:\s[^\W\d]+){{0,2}}?{_OPERATOR}[$(]?\d|[A-Za-z)]")
# Languages with a decimal comma. In these, both "1.000" and "1,000" are a thousand: models write English numbers in any
# language, and no answer of the data sets has three decimals.
_COMMA_LANGUAGES = frozenset("bg de el es fi fr id it nl pl pt ro ru tr uk vi".split())
_GROUPED = re.compile(r"\d{1,3}(?:,\d{3})+|\d{1,2}(?:,\d{2})+,\d{3}")  # the second is South Asian: 1,00,000
_FOLDED = {
    "−": "-",
    "－": "-",
    "٫": ".",
    "．": ".",
    "٬": "'",
    "，": ",",
    "’": "'",
    "＇": "'",
    "％": "%",
    "（": "(",
    "）": ")",
}
_LATEX = (  # 1{,}234  1,\!234  1\,234  \$18  \frac{1}{2}  \text{18}
    (re.compile(r"\{([.,])\}"), r"\1"),
    (re.compile(r"\\!"), ""),
    (re.compile(r"\\[,:; ]"), "\u202f"),
    (re.compile(r"\\([$%])"), r"\1"),
    (re.compile(r"\\[dt]?frac\{(\d+)\}\{(\d+)\}"), r" \1/\2"),
    (re.compile(r"\\(?:text|mathrm|textbf|mathbf)\{([^{}]*)\}"), r"\1"),
)
_NARROW_SPACES = "\u00a0\u2007\u2009\u202f"


def find_number(text: str) -> str:
    """The final number of a text, in ASCII digits and with its separators; "" if there is none.

    This is the number of the first line that gives the answer: with "####", \\boxed or a word for "answer". Lines that
    give it again directly below or after a correction replace it, and what follows does not count (see `solution`).
    Without such a line it is the last number. Currency and percent signs are left out.
    """
    folded = "".join(map(_fold, text))
    for pattern, replacement in _LATEX:
        folded = pattern.sub(replacement, folded)
    lines = solution(folded).split("\n")
    if (given := _given(lines)) or (given := _last(map(_phrase, lines))):
        return given
    return _last(_readable(match) for line in lines for match in _PLAIN.finditer(line)) or ""


def _given(lines: list[str]) -> str | None:
    """The number of the first lines that end the solution, or of the first after a correction of these."""
    result = None
    while ends := [index for index, line in enumerate(lines) if _ending(line)]:
        last = ends[0]
        while "####" not in lines[last] and last + 1 in ends:
            last += 1
        result, lines = _ending(lines[last]), lines[last + 1 :]
        if not _CORRECTION.match(next(filter(str.strip, lines), "")):
            break
    return result


def _ending(line: str) -> str | None:
    """The number of a line that ends a solution; None for other lines."""
    for pattern in (_HASHES, _BOXED):
        if match := pattern.search(line):
            return _result(match)
    return _phrase(line, _ENDS)


def _phrase(line: str, gap: re.Pattern[str] = _LINKED) -> str | None:
    """The number after a word for "answer", if what is between them matches `gap`."""
    match = _PHRASE.search(line)
    return _result(match) if match and gap.fullmatch(match["gap"]) else None


def _result(match: re.Match[str]) -> str | None:
    """The number of a match; of an expression, the last number alone between equality signs."""
    expression = _EXPRESSION.match(match["rest"])
    parts = re.split("[=≈]", re.split(r"[.;] |。", match["rest"])[0])[1:] if expression else []
    for part in reversed(parts):
        number = _PLAIN.search(part)
        if number and not _EXPRESSION.match(part[number.end() :]):
            return _readable(number)
    return _readable(match)


def _readable(match: re.Match[str]) -> str | None:
    written = _written(match)
    return written if read_number(written, "en") is not None else None


def _last(numbers: Iterable[str | None]) -> str | None:
    return next((number for number in reversed([*numbers]) if number), None)


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
