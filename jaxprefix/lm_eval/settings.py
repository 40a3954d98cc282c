"""The generation settings of a task: the harness's generation_kwargs, read strictly."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lm_eval.models.utils import normalize_gen_kwargs

from jaxprefix.errors import InputError
from jaxprefix.models.sampling import Sampling

DEFAULT_NEW_TOKENS = 256  # the default of the harness's other backends
NUMBERS = ("max_gen_toks", "temperature", "top_k", "top_p", "seed", "num_beams")
KNOWN = ("until", "do_sample", *NUMBERS)


@dataclass(frozen=True)
class Settings:
    """Generation settings; requests with equal ones are answered together."""

    max_new_tokens: int
    sampling: Sampling
    stop: tuple[str, ...]


def read_settings(kwargs: Mapping[str, Any], end: str | None) -> Settings:
    """The settings of a request.

    Args:
        kwargs: the generation_kwargs of the request.
        end: the text of the end token; an answer stops there even if it spells the token out.

    Raises:
        InputError: if a setting is unknown or a value is invalid.
    """
    for name in NUMBERS:  # before the harness converts them
        _number(name, kwargs, 0)
    values: dict[str, Any] = dict(normalize_gen_kwargs(dict(kwargs), DEFAULT_NEW_TOKENS))
    if unknown := sorted(set(values) - set(KNOWN)):
        raise InputError(f"generation setting {unknown[0]!r} is not supported; expected {', '.join(KNOWN)}")
    if values.get("num_beams", 1) != 1:
        raise InputError(f"num_beams is {values['num_beams']}; beam search is not supported, expected 1")
    if values["max_gen_toks"] < 1:
        raise InputError(f"max_gen_toks is {values['max_gen_toks']}; expected at least 1")
    stop = tuple(dict.fromkeys(text for text in (*values["until"], end) if text))
    return Settings(values["max_gen_toks"], _sampling(values), stop)


def _sampling(values: dict[str, Any]) -> Sampling:
    if not values["do_sample"]:
        return Sampling()
    temperature = _number("temperature", values, 0.0)
    if not temperature:
        raise InputError("do_sample needs a temperature above 0; set one, or use do_sample=False")
    top_k, seed = (int(_number(name, values, 0)) for name in ("top_k", "seed"))
    return Sampling(temperature, top_k, _number("top_p", values, 1.0), seed)


def _number(name: str, values: Mapping[str, Any], default: float) -> float:
    """The number `name`, also from text, because YAML reads 1e-1 as text."""
    try:
        return float(values.get(name) or default)
    except (TypeError, ValueError):
        raise InputError(f"{name} is {values[name]!r}; expected a number") from None
