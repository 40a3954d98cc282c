"""Renders the chat template of a model, a program in the model's files.

transformers compiles it in the sandbox of Jinja, which blocks files, the internals of Python and ranges of more than
100,000. Jinja has no endless loop, so every template ends, but nested loops may be slow and "x" * 10**10 may need much
memory. Neither is bounded here: the files of a model may be slow, but they cannot run arbitrary code.
"""

from collections.abc import Sequence
from contextvars import ContextVar
from datetime import date, datetime, time
from typing import Any

from jaxprefix.errors import InputError
from jaxprefix.io.messages import short_repr, truncate
from jaxprefix.io.strict_json import check_unicode

# Some templates write the current date: Llama 3.2's, Mistral Small's. Each run has one date, in its run.json, so that
# training and evaluation do not depend on the day. Without a run it is the date that Llama 3.1's template writes.
DEFAULT_DATE = date(2024, 7, 26)
CLOCK = "strftime_now"  # the function that gives templates the current date
_DATE: ContextVar[date] = ContextVar("chat_date", default=DEFAULT_DATE)
LONGEST_TEMPLATE = 2**20  # characters; Llama 3.1's has 4,000
MOST_ADDED = 2**20  # characters that a template may add to the turns

Turn = dict[str, str]  # "role" and "content"


def parse_date(text: str) -> date:
    """ "2024-07-26" -> the date. InputError for any other text."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise InputError(f"--chat-date is {short_repr(text)}; expected a date such as {DEFAULT_DATE}") from None


def _strftime_now(format: str) -> str:
    return datetime.combine(_DATE.get(), time()).strftime(format)


def render(
    template: str, turns: Sequence[Turn], special_tokens: dict[str, str], day: date = DEFAULT_DATE, **flags: bool
) -> str:
    """The text of the turns on a day. InputError if the template rejects them or fails."""
    from transformers.utils import chat_template_utils  # slow to import; does not import torch

    names: dict[str, Any] = {**special_tokens, **flags}
    for turn in turns:
        check_unicode(turn["content"])
    today = _DATE.set(day)
    try:
        # The compiled template is cached. Its globals are its own, and transformers passes no functions to templates.
        chat_template_utils._compile_jinja_template(template).globals[CLOCK] = _strftime_now
        rendered, _ = chat_template_utils.render_jinja_template([list(turns)], chat_template=template, **names)
    except Exception as error:  # a template can raise any error, also for memory and recursion
        why = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"the model's chat template fails: {truncate(why)}") from None
    finally:
        _DATE.reset(today)
    text = rendered[0]
    if len(text) > MOST_ADDED + 100 * sum(len(turn["content"]) for turn in turns):
        raise InputError(f"the model's chat template fails: it expands the turns to {len(text)} characters")
    try:
        check_unicode(text)
    except InputError as error:
        raise InputError(f"the model's chat template fails: {error}") from None
    return text
