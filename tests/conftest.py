"""Prepares JAX before it is imported: eight emulated CPU devices, so that meshes can be tested anywhere, and fast
compilation. The annotations of array shapes are checked. Compiled programs are freed after each file, and long files
start first.

Tests that need an accelerator run with JAX_PLATFORMS=cuda pytest -m gpu.
"""

import ctypes
import gc
import os
import signal
import tempfile
from collections.abc import Iterator

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests compile a lot and compute little. Without optimisations XLA compiles in a seventh of the time. `make
# test-all` sets no flags, as a user's environment.
if os.environ["JAX_PLATFORMS"] == "cpu":
    QUICK = "backend_optimization_level=0", "llvm_disable_expensive_passes=true", "cpu_use_fusion_emitters=false"
    os.environ.setdefault("XLA_FLAGS", " ".join(f"--xla_{flag}" for flag in QUICK))
# Many tests and their subprocesses compile the same small programs. A shared cache compiles each only once.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    CACHE = tempfile.TemporaryDirectory(prefix="jaxprefix-tests-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = CACHE.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"

import jax
from jaxtyping import install_import_hook

jax.config.update("jax_num_cpu_devices", 8)

# hooks.py is left out: its dataclasses also hold slices without their first dimension.
install_import_hook(
    [f"jaxprefix.models.{name}" for name in ("attention", "decode", "decoder", "scan", "scoring")], "beartype.beartype"
)

# Files of twenty seconds and more. They start first, so that no worker still runs a long one when the others are done.
LONGEST = (
    "test_readme.py",
    "test_evaluate.py",
    "test_study.py",
    "test_study_interrupted.py",
    "test_resume.py",
    "test_api.py",
    "test_engine.py",
)


def pytest_configure(config: pytest.Config) -> None:
    """Disables the order of xdist, which starts the files with the most tests first, and restores the handler of
    Ctrl-C, which tests send: a background job of a shell and its children ignore it.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Moves the files in LONGEST to the front, in its order."""
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(LONGEST)))


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skips the plots, which take a quarter of a small evaluation."""
    monkeypatch.setattr("jaxprefix.evaluation.plots.draw", lambda *_: [])


@pytest.fixture(scope="module", autouse=True)
def programs_are_let_go() -> Iterator[None]:
    """Frees the compiled programs of each file, which JAX keeps otherwise, and returns the memory that glibc keeps.

    The rest is mostly imported modules. It is frozen, so that later collections do not scan it again.
    """
    yield
    jax.clear_caches()
    gc.collect()
    gc.freeze()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
