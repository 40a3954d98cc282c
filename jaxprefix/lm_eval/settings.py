"""How a task wants its answers generated: the harness's generation_kwargs, read strictly."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lm_eval.models.utils import normalize_gen_kwargs

from jaxprefix.errors import InputError
from jaxprefix.models.sampling import Sampling

DEFAULT_LENGTH = 256  # tokens, as the harness's other backends have it
NUMBERS = ("max_gen_toks", "temperature", "top_k", "top_p", "seed", "num_beams")
KNOWN = ("until", "do_sample", *NUMBERS)


@dataclass(frozen=True)
class Settings:
    """Requests with the same ones are answered together."""

    longest: int  # tokens of an answer
    sampling: Sampling
    stop: tuple[str, ...]


def read_settings(given: Mapping[str, Any], end: str | None) -> Settings:
    """The settings of a request; `end` is the end token as text, at which answers end even if it is spelled out.

    Raises:
        InputError: a setting that we do not have, or a value that cannot be.
    """
    for name in NUMBERS:  # before the harness converts them
        _number(name, given, 0)
    values: dict[str, Any] = dict(normalize_gen_kwargs(dict(given), DEFAULT_LENGTH))
    if unknown := sorted(set(values) - set(KNOWN)):
        raise InputError(f"generation setting {unknown[0]!r} is not supported; expected {', '.join(KNOWN)}")
    if values.get("num_beams", 1) != 1:
        raise InputError(f"num_beams is {values['num_beams']}; answers are generated without beams, expected 1")
    if values["max_gen_toks"] < 1:
        raise InputError(f"max_gen_toks is {values['max_gen_toks']}; expected at least 1")
    stop = tuple(dict.fromkeys(text for text in (*values["until"], end) if text))
    return Settings(values["max_gen_toks"], _sampling(values), stop)


def _sampling(values: dict[str, Any]) -> Sampling:
    if not values["do_sample"]:
        return Sampling()
    temperature = _number("temperature", values, 0.0)
    if not temperature:
        raise InputError("do_sample needs a temperature above 0; give one, or do_sample=False")
    top_k, seed = (int(_number(name, values, 0)) for name in ("top_k", "seed"))
    return Sampling(temperature, top_k, _number("top_p", values, 1.0), seed)


def _number(name: str, values: Mapping[str, Any], missing: float) -> float:
    """YAML reads 1e-1 as a text."""
    try:
        return float(values.get(name) or missing)
    except (TypeError, ValueError):
        raise InputError(f"{name} is {values[name]!r}; expected a number") from None
