"""The part of a generated text that solves the problem, without numbers that are not results.

A base model does not stop after its solution: it checks it, or makes up a next problem. All functions take text with
ASCII digits.
"""

import re
from collections.abc import Sequence

# A problem's heading, and words that a number names, in MGSM's languages. A number after a noun counts it in Thai, and
# often in Swahili.
_PROBLEMS = """problem question exercise example task q frage aufgabe beispiel problème exercice exemple
               pregunta problema ejercicio ejemplo вопрос задача задание пример 问题 题目 例题 問題 質問 swali tatizo
               mfano ప్రశ్న సమస్య ఉదాహరణ প্রশ্ন সমস্যা উদাহরণ""".split()
_THAI_PROBLEMS = "โจทย์ คำถาม ตัวอย่าง".split()
_PARTS = "part step teil schritt partie étape parte paso часть части шаг 第 步骤 ステップ భాగం దశ অংশ ধাপ".split()
_CHECKS = """check verify verification probe überprüfung vérification verificación comprobación проверка проверим 检验
             验证 验算 検算 確認 uthibitisho hakiki తనిఖీ ตรวจสอบ যাচাই""".split()


def _any(words: Sequence[str]) -> str:
    """A pattern for one of the words. Words of letters with case must be whole."""
    return "|".join(rf"\b{word}\b" if word.lower() != word.upper() else word for word in words)


_HEADING = re.compile(rf"\n[\s#*_>-]*(?i:{_any(_PROBLEMS + _THAI_PROBLEMS)})\s*(?:no\.?|#)?\s*\d*\s*[*_]*\s*[:.)\n]")
_CHECK = re.compile(
    rf"(?:\n|[.!?。।]\s)[\s*_#(]*(?i:(?:let(?:'s| us| me)|to|we can|now|double)?[\s-]*(?:{_any(_CHECKS)}))"
    r"(?:[^\n\d.:]{0,40}[:\n]|,)"
)
# The numbers of "part 2", "question no. 3", "第2問" and "Answer 2: 18". A word of the text is kept, its number is not.
_NAMED = re.compile(
    rf"((?i:{_any(_PROBLEMS + _PARTS)})\s?(?i:no\.?|nº|#)?\s?)\d+(?![\d,.]*\d)|((?i:\banswer\b)\s?#?\s?)\d+(?=\s?[:)])"
)
# The exponents of "m^2", "\text{cm}^{2}" and "km2", and the amount of "per 100 g".
_UNIT = re.compile(
    r"(?<=[A-Za-z}])\s?\^\s?(?:\{[-+]?\d+\}|[-+]?\d)"
    r"|(?<![A-Za-z])([kcdm]?m|in|ft|yd|mi)[23](?![\d\w])"
    r"|\b(per|pro)\s\d[\d.,]*(?=\s?[A-Za-z])"
)
# A bracket after a number and at most two words: "18 (= 3 * 6)". Before an operator it is a factor: "5 (3) = 15".
_ASIDE = re.compile(r"(\d[%$]?\$?(?:\s[^\W\d]+){0,2}\s?)[(\[][^()\[\]\n]*\d[^()\[\]\n]*[)\]](?!\s*[-+*/=^×÷])")
_QUESTION = re.compile(r"\n\s*\n(?=[^?？؟=]*\d[^?？؟=]*[?？؟])")  # a paragraph with numbers and a question mark


def solution(text: str) -> str:
    """The text up to a check or a next problem, without brackets after a number and numbers of parts and units."""
    for pattern in (_HEADING, _CHECK, _QUESTION):
        text = _before(text, pattern)
    text = _NAMED.sub(lambda match: match[1] or match[2], text)
    text = _UNIT.sub(lambda match: match[1] or match[2] or "", text)
    return _ASIDE.sub(r"\1", text)


def _before(text: str, pattern: re.Pattern[str]) -> str:
    """The text before the first match that has a result before it: a number, and an equation if it is a paragraph."""
    for match in pattern.finditer(text):
        start = text[: match.start()]
        if re.search(r"\d", start) and (pattern is not _QUESTION or re.search("[=:]", start)):
            return start
    return text
