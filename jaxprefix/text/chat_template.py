"""Renders the chat template of a model, a program in the model's files.

transformers compiles it in the sandbox of Jinja, which blocks files, the internals of Python and ranges of more than
100,000. Jinja has no endless loop, so every template ends, but nested loops may be slow and "x" * 10**10 may need much
memory. Neither is bounded here: the files of a model may be slow, but they cannot run arbitrary code.
"""

from collections.abc import Sequence
from typing import Any

from jaxprefix.errors import InputError
from jaxprefix.io.messages import truncate
from jaxprefix.io.strict_json import check_unicode

# The template of Llama 3 defaults to the current date; training and evaluation must not depend on the day.
CHAT_DATE = "26 Jul 2024"
LONGEST_TEMPLATE = 2**20  # characters; Llama 3.1's has 4,000
MOST_ADDED = 2**20  # characters that a template may add to the turns

Turn = dict[str, str]  # "role" and "content"


def render(template: str, turns: Sequence[Turn], special_tokens: dict[str, str], **flags: bool) -> str:
    """The text of the turns. InputError if the template rejects them or fails."""
    from transformers.utils.chat_template_utils import render_jinja_template  # slow to import; does not import torch

    names: dict[str, Any] = {**special_tokens, "date_string": CHAT_DATE, **flags}
    for turn in turns:
        check_unicode(turn["content"])
    try:
        rendered, _ = render_jinja_template([list(turns)], chat_template=template, **names)
    except Exception as error:  # a template can raise any error, also for memory and recursion
        why = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"the model's chat template fails: {truncate(why)}") from None
    text = rendered[0]
    if len(text) > MOST_ADDED + 100 * sum(len(turn["content"]) for turn in turns):
        raise InputError(f"the model's chat template fails: it expands the turns to {len(text)} characters")
    try:
        check_unicode(text)
    except InputError as error:
        raise InputError(f"the model's chat template fails: {error}") from None
    return text
