"""A model's chat template, rendered: a program that comes with the model.

transformers compiles it in Jinja's sandbox, which keeps it from files, from Python's internals and from ranges of more
than 100,000. Jinja has no endless loop, so every template ends; nested loops may take their time, and "x" * 10**10 its
memory. Neither is bounded here: a model's own files may be slow, but they run no code.
"""

from collections.abc import Sequence
from typing import Any

from jaxprefix.errors import InputError
from jaxprefix.io.messages import truncate
from jaxprefix.io.strict_json import check_unicode

# Llama 3's template writes today's date unless it is given one; training and evaluation must not differ by the day.
CHAT_DATE = "26 Jul 2024"
LONGEST_TEMPLATE = 2**20  # characters; Llama 3.1's has 4,000
MOST_ADDED = 2**20  # characters that a template may put around what was said

Turn = dict[str, str]  # "role" and "content"


def render(template: str, turns: Sequence[Turn], special_tokens: dict[str, str], **how: bool) -> str:
    """The text of the turns; InputError for a template that refuses them or fails."""
    from transformers.utils.chat_template_utils import render_jinja_template  # slow to import; does not import torch

    names: dict[str, Any] = {**special_tokens, "date_string": CHAT_DATE, **how}
    for turn in turns:
        check_unicode(turn["content"])
    try:
        rendered, _ = render_jinja_template([list(turns)], chat_template=template, **names)
    except Exception as error:  # a template is a program: it can raise whatever Python can, memory and recursion too
        why = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"the model's chat template fails: {truncate(why)}") from None
    text = rendered[0]
    if len(text) > MOST_ADDED + 100 * sum(len(turn["content"]) for turn in turns):
        raise InputError(f"the model's chat template fails: it makes {len(text)} characters of these turns")
    try:
        check_unicode(text)
    except InputError as error:
        raise InputError(f"the model's chat template fails: {error}") from None
    return text
