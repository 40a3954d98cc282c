"""Answers with known errors, always the same: metrics and official scripts are compared on them."""

import unicodedata
from collections.abc import Callable

# A word that the script of some language drops, and one inside which Arabic's rule finds an article.
ARTICLES = {"ar": "ال", "de": "die", "en": "the", "es": "los", "hi": "एक", "vi": "những", "zh": "这"}
ZEROS = {"ar": "٠", "bn": "০", "hi": "०", "te": "౦", "th": "๐", "zh": "０"}


def with_articles(answer: str, language: str) -> str:
    """An article before each word, English ones in between, and the Arabic one in the middle of the last word."""
    word = ARTICLES.get(language, "a")
    joined = f" {word} ".join(["", *answer.split()])
    middle = len(joined) - 2
    return f"An {joined[:middle]}{'ال' if language == 'ar' else ''}{joined[middle:]} A"


def with_punctuation(answer: str, language: str) -> str:
    """Punctuation of ASCII, of Unicode, and symbols, around words and within them."""
    return "«" + answer.replace(" ", " — ").replace("e", "e'") + "。؟!” $5 + ^~|`।、"


def with_other_case(answer: str, language: str) -> str:
    """Every letter in the other case, and letters whose cases differ in number."""
    return answer.swapcase() + (" İSTANBUL STRASSE ẞ" if len(answer) % 2 else "")


def with_native_digits(answer: str, language: str) -> str:
    """The language's own digits in the place of 0 to 9."""
    zero = ord(ZEROS.get(language, "٠"))
    return "".join(chr(zero + int(letter)) if letter in "0123456789" else letter for letter in answer)


def with_decimal_commas(answer: str, language: str) -> str:
    """Points and commas exchanged, and a number with both behind the answer."""
    return answer.translate(str.maketrans(".,", ",.")) + " 1.234,5"


def nothing(answer: str, language: str) -> str:
    return ""


def on_several_lines(answer: str, language: str) -> str:
    """The answer's words on lines of their own, among empty ones."""
    return "\n\n" + "\r\n".join(answer.split()) + "\t\u2003\n" + answer[:3]


def with_more_words(answer: str, language: str) -> str:
    """Words before and after, one of them a word of the answer again."""
    return f"I say: {answer} {answer.split()[0]} 我说 कहना"


def cut(answer: str, language: str) -> str:
    """The first half of its letters, which ends within a word or beside a combining mark."""
    return answer[: (len(answer) + 1) // 2]


def turned_round(answer: str, language: str) -> str:
    """The words in reverse order; letters separated from their accents."""
    return unicodedata.normalize("NFD", " ".join(reversed(answer.split())))


PERTURBATIONS: dict[str, Callable[[str, str], str]] = {
    "gold": lambda answer, language: answer,
    "articles": with_articles,
    "punctuation": with_punctuation,
    "case": with_other_case,
    "digits": with_native_digits,
    "decimals": with_decimal_commas,
    "empty": nothing,
    "lines": on_several_lines,
    "words": with_more_words,
    "cut": cut,
    "order": turned_round,
}

# The words that MGSM's scripts look for before the number.
ANSWERS = {"bn": "উত্তর", "de": "Antwort", "en": "Answer", "sw": "Jibu", "zh": "答案"}
# Ways to write a whole number that GSM8K's and MGSM's scripts read.
NUMBERS: dict[str, Callable[[int], str]] = {
    "plain": str,
    "grouped": lambda number: f"{number:,}",
    "currency": lambda number: f"${number}",
    "percent": lambda number: f"{number}%.",
    "wrong": lambda number: str(number + 1),
}
