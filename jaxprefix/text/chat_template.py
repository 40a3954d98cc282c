"""A model's chat template, rendered: the program of a stranger, which gets a few seconds and says one line.

transformers compiles it in Jinja's sandbox, which keeps it from files, from Python's own insides and from ranges of
more than 100,000, and bounds nothing else. Here its loops are stopped after a time and its text is measured. What one
operation does cannot be interrupted from within a process: "x" * 10**10 or 10**10**10 take the memory or the time that
they take.
"""

import ctypes
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from jaxprefix.errors import InputError
from jaxprefix.io.messages import clipped
from jaxprefix.io.strict_json import check_unicode

# Llama 3's template writes today's date unless it is given one; training and evaluation must not differ by the day.
CHAT_DATE = "26 Jul 2024"
SECONDS = 10.0  # a template of a real model takes a thousandth of one
LONGEST_TEMPLATE = 2**20  # characters; Llama 3.1's has 4,000
MOST_ADDED = 2**20  # characters that a template may put around what was said

Turn = dict[str, str]  # "role" and "content"


class _TooSlowError(Exception):
    """Raised inside a template that has had its time."""


def render(template: str, turns: Sequence[Turn], special_tokens: dict[str, str], **how: bool) -> str:
    """The text of the turns; InputError for a template that refuses them, fails, or does not come to an end."""
    from transformers.utils.chat_template_utils import render_jinja_template  # slow to import; does not import torch

    names: dict[str, Any] = {**special_tokens, "date_string": CHAT_DATE, **how}
    for turn in turns:
        check_unicode(turn["content"])
    over = threading.Event()
    try:
        with _deadline(SECONDS, over):
            rendered, _ = render_jinja_template([list(turns)], chat_template=template, **names)
    except Exception as error:  # a template is a program: it can raise whatever Python can, memory and recursion too
        if over.is_set():  # Jinja may turn what stopped it into an error of its own
            raise InputError(f"the model's chat template fails: it does not end within {SECONDS:g} seconds") from None
        why = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"the model's chat template fails: {clipped(why)}") from None
    text = rendered[0]
    if len(text) > MOST_ADDED + 100 * sum(len(turn["content"]) for turn in turns):
        raise InputError(f"the model's chat template fails: it makes {len(text)} characters of these turns")
    try:
        check_unicode(text)
    except InputError as error:
        raise InputError(f"the model's chat template fails: {error}") from None
    return text


@contextmanager
def _deadline(seconds: float, over: threading.Event) -> Iterator[None]:
    """Raises _TooSlowError in this thread, at its next step in Python, when the time is `over`.

    A signal would do for the main thread alone, and a thread of its own could not be ended.
    """
    thread, lock, ended = threading.get_ident(), threading.Lock(), False

    def stop() -> None:
        with lock:
            if not ended:
                over.set()
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(_TooSlowError))

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        with lock:  # from here on nothing is raised
            ended = True
