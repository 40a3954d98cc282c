"""Answers of an adapted model to prompts."""

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
    """One answer per prompt, in order, of at most `max_new_tokens` tokens. Adapter `adapters[i]` answers prompt i.

    InputError if a prompt is longer than the model's rows.
    """
    requests = [_request(model, prompt, adapter) for prompt, adapter in zip(prompts, adapters, strict=True)]
    finished = engine.generate(model, requests, batch, max_new_tokens, sampling, stop)
    texts = dict(pair for batch_answers in finished for pair in batch_answers)
    return [texts[index] for index in range(len(requests))]


def stream(
    model: Model, prompt: str, adapter: int, max_new_tokens: int, sampling: Sampling, stop: Sequence[str] = ()
) -> Iterator[str]:
    """The answer to one prompt, piece by piece.

    InputError, before the first piece is computed, if the prompt is longer than the model's rows.
    """
    return engine.stream(model, _request(model, prompt, adapter), max_new_tokens, sampling, stop)


def _request(model: Model, prompt: str, adapter: int) -> Request:
    text, tokenizer = prompt_end(prompt) if model.ends_prompts else prompt, model.base.tokenizer
    ids = tokenizer.chat(text) if model.chat else tokenizer.prompt_ids(text)
    if len(ids) > model.max_length:
        raise InputError(
            f"a prompt has {len(ids):,} tokens, the run takes {model.max_length:,}; shorten {prompt[:40]!r}"
        )
    return Request(ids, adapter=adapter)
