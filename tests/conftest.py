"""Before JAX wakes: eight emulated CPU devices, to test meshes anywhere, and programs that are compiled quickly; then
annotations of shapes are executed.

Tests of an accelerator ask for it by name: JAX_PLATFORMS=cuda pytest -m gpu
"""

import os
import tempfile

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
    [f"jaxprefix.models.{name}" for name in ("attention", "decode", "decoder", "layers", "score")], "beartype.beartype"
)
