"""lm-evaluation-harness's two figures for a generated number, on the texts that we score ourselves. Papers quote them.

They are those of its tasks mgsm_en_cot_*, version 3.0, whose answers end as ours do (the harness 0.4.13): the number
after the first "The answer is", and the last number of the text, both compared as texts without punctuation. So
"The answer is 18.0" is wrong, "-18" equals "18", and native digits and decimal commas are not read.
"""

import re
import string

from jaxprefix.tasks.task import Example

METRICS = ("strict_match", "flexible_extract")
NOTE = (
    "strict_match and flexible_extract are the figures of lm-evaluation-harness (mgsm_en_cot) for the same texts; "
    "exact_match also reads other digits, separators and marks of an answer, and not what follows it."
)
_STRICT = re.compile(r"The answer is (\-?[0-9\.\,]+)")
_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def score_text(text: str, example: Example) -> dict[str, float]:
    """1 if what the filter extracts from the text equals the reference, else 0, for each of METRICS."""
    first = next((match[1] for match in _STRICT.finditer(text)), None)
    *_, last = [None, *(match[0] for match in _FLEXIBLE.finditer(text))]
    right = _plain(example.references[0])
    return {
        name: float(found is not None and _plain(found) == right)
        for name, found in zip(METRICS, (first, last), strict=True)
    }


def _plain(number: str) -> str:
    return number.strip().lower().translate(_PUNCTUATION)
