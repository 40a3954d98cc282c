"""Methods are added with +, or are the arguments of `add`."""

import pytest

from jaxprefix.errors import InputError
from jaxprefix.models.adapters import IA3, METHODS, FullFineTuning, LoRA, NoAdapter, PrefixTuning, Sum, Summand, add
from jaxprefix.runs.config import RunConfig

PREFIX, LORA = PrefixTuning(length=3), LoRA(rank=2)


def test_a_sum_is_that_of_the_command_line():
    assert PREFIX + LORA == RunConfig(method="prefix+lora", prefix=PREFIX, lora=LORA).adapter
    assert RunConfig().with_adapter(PREFIX + LORA).method == "prefix+lora"


def test_sums_are_flat():
    expected = Sum((("prefix", PREFIX), ("lora", LORA), ("ia3", IA3())))
    assert (PREFIX + LORA) + IA3() == PREFIX + (LORA + IA3()) == add(PREFIX, LORA, IA3()) == expected
    assert add(PREFIX) is PREFIX


def test_every_method_is_a_summand():
    assert all(issubclass(method, Summand) for method in METHODS)


def test_your_own_method_needs_no_operator_of_its_own():
    class Own:
        method = "own"
        starts_as_base = True
        prompt_length = 0

        def init(self) -> None: ...

        def bind(self) -> None: ...

    own = Own()
    assert LORA + own == Sum((("lora", LORA), ("own", own)))
    assert own + LORA == Sum((("own", own), ("lora", LORA)))  # type: ignore[operator]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (PrefixTuning(length=4), "a method can be in a sum only once"),
        (NoAdapter(), "none cannot be part of a sum"),
        (FullFineTuning(), "full cannot be part of a sum"),
        (LoRA, "LoRA'> is not a method; expected one such as PrefixTuning"),
        (3, "3 is not a method; expected one such as PrefixTuning"),
    ],
)
def test_what_cannot_be_added(other: object, message: str):
    with pytest.raises(InputError, match=message):
        PREFIX + other  # type: ignore[operator]
