"""Renders conversations in a model's chat template; few-shot examples are earlier turns."""

from collections.abc import Sequence

from jaxprefix.errors import InputError
from jaxprefix.text.chat_template import Turn
from jaxprefix.text.tokenizer import Tokenizer


def template_of(tokenizer: Tokenizer) -> str:
    """The model's chat template; InputError if it has none."""
    try:
        return tokenizer.require_template()
    except InputError as error:
        raise InputError(f"--apply_chat_template: {error}") from None


def render(tokenizer: Tokenizer, turns: Sequence[Turn], answer: bool) -> str:
    """The text of the turns. It ends where the answer begins, or without `answer` inside the last turn.

    If the template refuses the turns, they are rendered without the system prompt, as in the harness's hf backend.

    Raises:
        InputError: if the template refuses those too, or the model has no template.
    """
    template_of(tokenizer)
    options = {"add_generation_prompt": answer, "continue_final_message": not answer}
    try:
        return tokenizer.render(turns, **options)
    except InputError:
        try:
            return tokenizer.render([turn for turn in turns if turn["role"] != "system"], **options)
        except InputError as error:
            raise InputError(f"--apply_chat_template: {error}") from None
