"""A conversation as the text of a model's chat template, few-shot examples as earlier turns of it."""

from collections.abc import Sequence

from jaxprefix.errors import InputError
from jaxprefix.text import chat_template
from jaxprefix.text.chat_template import Turn
from jaxprefix.text.tokenizer import Tokenizer


def template_of(tokenizer: Tokenizer) -> str:
    """The model's chat template; InputError where it has none."""
    if tokenizer.chat_template is None:
        raise InputError(
            "--apply_chat_template: the model has no chat template (tokenizer_config.json, chat_template.jinja)"
        )
    return tokenizer.chat_template


def render(tokenizer: Tokenizer, turns: Sequence[Turn], answer: bool) -> str:
    """The turns, ready for the `answer`, or (False) for more of the last one.

    A template that refuses the turns gets them without the system prompt, as in the harness's hf backend.
    InputError where it refuses those too, or the model has no template.
    """
    template, names = template_of(tokenizer), dict(tokenizer.special_tokens)
    how = {"add_generation_prompt": answer, "continue_final_message": not answer}
    try:
        return chat_template.render(template, turns, names, **how)
    except InputError:
        try:
            return chat_template.render(template, [turn for turn in turns if turn["role"] != "system"], names, **how)
        except InputError as error:
            raise InputError(f"--apply_chat_template: {error}") from None
