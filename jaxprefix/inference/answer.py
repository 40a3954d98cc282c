"""Prompts in, answers out: what a person asks an adapted model."""

from collections.abc import Iterator, Sequence

from jaxprefix.errors import InputError
from jaxprefix.inference import engine
from jaxprefix.inference.batching import Request
from jaxprefix.inference.model import Model
from jaxprefix.models.sampling import GREEDY, Sampling
from jaxprefix.tasks.user_rows import prompt_end


def answers(
    model: Model,
    prompts: Sequence[str],
    adapters: Sequence[int],
    max_new_tokens: int,
    batch: int,
    sampling: Sampling = GREEDY,
    stop: Sequence[str] = (),
) -> list[str]:
    """One answer a prompt, in order, of at most `longest` tokens; prompt i asks adapter `adapters[i]`.

    InputError for prompts that are longer than the model's rows.
    """
    asked = [_asked(model, prompt, adapter) for prompt, adapter in zip(prompts, adapters, strict=True)]
    parts = engine.generate(model, asked, batch, max_new_tokens, sampling, stop)
    found = {place: text for part in parts for place, text in part}
    return [found[place] for place in range(len(asked))]


def stream(
    model: Model, prompt: str, adapter: int, max_new_tokens: int, sampling: Sampling, stop: Sequence[str] = ()
) -> Iterator[str]:
    """The answer to one prompt, piece by piece as it is written.

    InputError, before the first piece is asked for, for a prompt that is longer than the model's rows.
    """
    return engine.stream(model, _asked(model, prompt, adapter), max_new_tokens, sampling, stop)


def _asked(model: Model, prompt: str, adapter: int) -> Request:
    text, tokenizer = prompt_end(prompt), model.base.tokenizer
    ids = tokenizer.chat(text) if model.chat else tokenizer.prompt_ids(text)
    if len(ids) > model.max_length:
        raise InputError(
            f"a prompt has {len(ids):,} tokens, the run takes {model.max_length:,}; shorten {prompt[:40]!r}"
        )
    return Request(ids, adapter=adapter)
