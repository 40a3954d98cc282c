"""Before JAX wakes: eight emulated CPU devices, to test meshes anywhere; and annotations of shapes are executed.

Tests of an accelerator ask for it by name: JAX_PLATFORMS=cuda pytest -m gpu
"""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
from jaxtyping import install_import_hook

jax.config.update("jax_num_cpu_devices", 8)

# Functions on arrays only: the dataclasses of hooks.py also hold slices without their first dimension.
install_import_hook(
    [f"jaxprefix.models.{name}" for name in ("attention", "decode", "decoder", "score")], "beartype.beartype"
)
