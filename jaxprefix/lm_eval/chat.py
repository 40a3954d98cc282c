"""Renders conversations in a model's chat template; few-shot examples are earlier turns."""

from collections.abc import Sequence

from jaxprefix.errors import InputError
from jaxprefix.text import chat_template
from jaxprefix.text.chat_template import Turn
from jaxprefix.text.tokenizer import Tokenizer


def template_of(tokenizer: Tokenizer) -> str:
    """The model's chat template; InputError if it has none."""
    if tokenizer.chat_template is None:
        raise InputError(
            "--apply_chat_template: the model has no chat template (tokenizer_config.json, chat_template.jinja)"
        )
    return tokenizer.chat_template


def render(tokenizer: Tokenizer, turns: Sequence[Turn], answer: bool) -> str:
    """The text of the turns. It ends where the answer begins, or without `answer` inside the last turn.

    If the template refuses the turns, they are rendered without the system prompt, as in the harness's hf backend.

    Raises:
        InputError: if the template refuses those too, or the model has no template.
    """
    template, names = template_of(tokenizer), dict(tokenizer.special_tokens)
    options = {"add_generation_prompt": answer, "continue_final_message": not answer}
    try:
        return chat_template.render(template, turns, names, **options)
    except InputError:
        try:
            without_system = [turn for turn in turns if turn["role"] != "system"]
            return chat_template.render(template, without_system, names, **options)
        except InputError as error:
            raise InputError(f"--apply_chat_template: {error}") from None
