"""Every kernel equals the XLA path, forward and in all gradients (law 9); splash runs interpreted, cuDNN's layout in XLA.

Real tokens alone are compared: what padding reads is never used. float32; results may differ by 2e-5, gradients by 1e-4.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxprefix.models import attention, decode, decoder
from jaxprefix.models.adapters import PrefixTuning
from jaxprefix.models.attention import call as calls
from jaxprefix.models.attention import cudnn, splash
from jaxprefix.models.attention.call import Call
from jaxprefix.models.hooks import ALWAYS, NEVER, Hooks, Prefix

TIME = 150  # two blocks of queries and of keys
LENGTHS = (TIME, 97)
REAL = np.arange(TIME) < np.array(LENGTHS)[:, None]
POSITIONS = jnp.array(np.where(REAL, np.arange(TIME), NEVER))
SIZE = 16


@pytest.fixture
def as_on_tpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Splash is chosen, and interpreted; its blocks are small, so that there are several."""
    monkeypatch.setattr(attention, "platform", lambda: "tpu")
    monkeypatch.setattr(splash, "attend", partial(splash.attend, interpret=True))
    monkeypatch.setattr(splash, "LARGEST_BLOCK", 128)


@pytest.fixture
def as_on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """cuDNN is chosen, and its layout computed by XLA."""
    monkeypatch.setattr(attention, "platform", lambda: "gpu")
    monkeypatch.setattr(cudnn, "refusal", lambda call: None)
    monkeypatch.setattr(cudnn, "attend", partial(cudnn.attend, implementation="xla"))


@dataclass(frozen=True)
class Case:
    """Heads, key heads, slots of the prefix (and whether each row has its own), whether the layer has it, the window."""

    heads: int = 4
    kv_heads: int = 2
    slots: int = 5
    rows: bool = False
    present: bool = True
    window: int | None = None

    @property
    def arguments(self) -> tuple[jax.Array, ...]:
        """query, keys, values, and of the prefix keys and values."""
        own = (len(LENGTHS),) if self.rows else ()
        shapes = [(len(LENGTHS), TIME, n, SIZE) for n in (self.heads, self.kv_heads, self.kv_heads)]
        shapes += 2 * [(*own, self.slots, self.kv_heads, SIZE)]
        return tuple(tiny.normal(seed, *shape) for seed, shape in enumerate(shapes))

    def attend(self, is_ordinary: bool, *arguments: jax.Array) -> jax.Array:
        query, keys, values, *slots = arguments
        positions = jnp.full(self.slots, ALWAYS if self.present else NEVER)
        prefix = Prefix(*slots, positions) if self.slots else None
        return attention.causal(query, keys, values, POSITIONS, prefix, self.window, is_ordinary)


COMMON = {
    "no prefix": Case(slots=0),
    "a prefix": Case(),
    "no prefix in this layer": Case(present=False),
    "a prefix a row": Case(rows=True),
    "as many key heads": Case(heads=2),
    "one key head": Case(heads=3, kv_heads=1),
    "a window of all": Case(window=TIME),
    "a window, no prefix": Case(slots=0, window=40),
}
WINDOWS = {
    "a window": Case(window=40),
    "a window of one": Case(window=1),
    "a window, no prefix in this layer": Case(window=40, present=False),
}


def assert_equal_to_xla(case: Case) -> None:
    """What real tokens read, and the gradients of a random function of it."""
    direction = tiny.normal(9, len(LENGTHS), TIME, case.heads, SIZE) * REAL[..., None, None]

    def run(is_ordinary: bool) -> Any:
        def function(*arguments: jax.Array) -> tuple[jax.Array, jax.Array]:
            read = case.attend(is_ordinary, *arguments)
            return jnp.sum(read * direction), read

        return jax.jit(jax.value_and_grad(function, range(5), has_aux=True))(*case.arguments)

    ((_, found), gradients), ((_, wanted), wanted_gradients) = run(True), run(False)
    assert not np.array_equal(found, wanted), "the kernel was not used"
    np.testing.assert_allclose(found[REAL], wanted[REAL], rtol=0, atol=2e-5)
    for name, one, other in zip("qkvKV", gradients, wanted_gradients, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4, err_msg=name)
        assert np.any(other) == (name in "qkv" or (case.slots > 0 and case.present))


@pytest.mark.parametrize("name", COMMON | WINDOWS)
@pytest.mark.usefixtures("as_on_tpu")
def test_splash(name: str):
    assert_equal_to_xla((COMMON | WINDOWS)[name])


@pytest.mark.parametrize("name", COMMON)
@pytest.mark.usefixtures("as_on_gpu")
def test_the_layout_for_cudnn(name: str):
    assert_equal_to_xla(COMMON[name])
