"""A conversation as the text of a model's chat template, few-shot examples as earlier turns of it."""

from collections.abc import Sequence
from typing import Any

from jaxprefix.tokenizer import CHAT_DATE, Tokenizer

Turn = dict[str, str]  # "role" and "content"


def template_of(tokenizer: Tokenizer) -> str:
    """The model's chat template; ValueError where it has none."""
    if tokenizer.chat_template is None:
        raise ValueError(
            "--apply_chat_template: the model has no chat template (tokenizer_config.json, chat_template.jinja)"
        )
    return tokenizer.chat_template


def render(tokenizer: Tokenizer, turns: Sequence[Turn], answer: bool) -> str:
    """The turns, ready for the `answer`, or (False) for more of the last one.

    A template that refuses the turns gets them without the system prompt, as in the harness's hf backend.
    ValueError where it refuses those too, or the model has no template.
    """
    from jinja2 import TemplateError

    try:
        return _render(tokenizer, list(turns), answer)
    except TemplateError:
        try:
            return _render(tokenizer, [turn for turn in turns if turn["role"] != "system"], answer)
        except TemplateError as error:
            why = " ".join(str(error).split())
            raise ValueError(f"--apply_chat_template: the model's chat template fails: {why}") from error


def _render(tokenizer: Tokenizer, turns: list[Turn], answer: bool) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template  # slow to import; does not import torch

    names: dict[str, Any] = {**dict(tokenizer.special_tokens), "date_string": CHAT_DATE}
    rendered, _ = render_jinja_template(
        [turns],
        chat_template=template_of(tokenizer),
        add_generation_prompt=answer,
        continue_final_message=not answer,
        **names,
    )
    return rendered[0]
