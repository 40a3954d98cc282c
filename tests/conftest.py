"""Before JAX wakes: eight emulated CPU devices, to test meshes anywhere, and programs that are compiled quickly; then
annotations of shapes are executed. Compiled programs are let go after each file, and long files start first.

Tests of an accelerator ask for it by name: JAX_PLATFORMS=cuda pytest -m gpu
"""

import ctypes
import gc
import os
import signal
import tempfile
from collections.abc import Iterator

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests compile much and compute little, and programs that are not optimised take XLA a seventh of the time. `make
# test-all` says that there are no flags, and has them as a user's are.
if os.environ["JAX_PLATFORMS"] == "cpu":
    QUICK = "backend_optimization_level=0", "llvm_disable_expensive_passes=true", "cpu_use_fusion_emitters=false"
    os.environ.setdefault("XLA_FLAGS", " ".join(f"--xla_{flag}" for flag in QUICK))
# Many tests and their subprocesses compile the same small programs: once is enough, for all test processes together.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    CACHE = tempfile.TemporaryDirectory(prefix="jaxprefix-tests-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = CACHE.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"

import jax
from jaxtyping import install_import_hook

jax.config.update("jax_num_cpu_devices", 8)

# Functions on arrays only: the dataclasses of hooks.py also hold slices without their first dimension.
install_import_hook(
    [f"jaxprefix.models.{name}" for name in ("attention", "decode", "decoder", "scan", "scoring")], "beartype.beartype"
)

# Files of twenty seconds and more. They start first, so that no worker has a long one left when the others are done.
LONGEST = (
    "test_readme.py",
    "test_evaluate.py",
    "test_resume.py",
    "test_api.py",
    "test_engine.py",
)


def pytest_configure(config: pytest.Config) -> None:
    """xdist would start the files with the most tests first. A job in a shell's background is started with Ctrl-C
    ignored, and its children inherit that; tests send Ctrl-C.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files of LONGEST come first, in its order; the others keep theirs."""
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(LONGEST)))


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing is a quarter of a small evaluation."""
    monkeypatch.setattr("jaxprefix.evaluation.plots.draw", lambda *_: [])


@pytest.fixture(scope="module", autouse=True)
def programs_are_let_go() -> Iterator[None]:
    """JAX keeps what it has compiled until it is told otherwise, and glibc keeps what is freed.

    What is left is mostly imported modules. It is frozen, so that later collections do not look at it again.
    """
    yield
    jax.clear_caches()
    gc.collect()
    gc.freeze()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
