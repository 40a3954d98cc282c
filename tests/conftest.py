"""Before JAX wakes: eight emulated CPU devices, to test meshes anywhere; and annotations of shapes are executed.

Tests of an accelerator ask for it by name: JAX_PLATFORMS=cuda pytest -m gpu
"""

import os
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
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
    [f"jaxprefix.models.{name}" for name in ("attention", "decode", "decoder", "score")], "beartype.beartype"
)
