"""A stand-in for jaxtyping, on machines that have JAX but no registry to install packages from."""

import importlib.util
import sys
import types

NAMES = ("Bool", "Float", "Int", "PyTree", "Shaped", "UInt32")


def stand_in() -> types.ModuleType:
    import jax

    class Shaped:
        def __class_getitem__(cls, _: object) -> type:
            return jax.Array

    module = types.ModuleType("jaxtyping")
    module.__dict__.update({"Array": jax.Array} | dict.fromkeys(NAMES, Shaped))
    return module


if importlib.util.find_spec("jaxtyping") is None:
    sys.modules["jaxtyping"] = stand_in()
