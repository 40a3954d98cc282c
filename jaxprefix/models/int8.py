"""Frozen projections in int8, with a float32 scale per output: the absmax quantization of LLM.int8()
(arXiv:2208.07339).

`q_proj` becomes `q_proj` (int8, -127 to 127) and `q_proj_scale` (its output dimensions), and so do the other six
projections. Embedding, head and norms keep their dtype. A product uses the integers, which bfloat16 represents exactly,
and is scaled afterwards (products.int8_matmul).
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxprefix.models.hooks import Frozen
from jaxprefix.models.parameters import PROJECTIONS, input_dims

LARGEST = 127


def scale_name(name: str) -> str:
    return f"{name}_scale"


def projection(scale: str) -> str:
    """The projection of a scale, by name."""
    return scale.removesuffix("_scale")


def is_scale(name: str) -> bool:
    return name.endswith("_scale")


def shapes(frozen: Frozen) -> Frozen:
    """The tree of ShapeDtypeStructs with int8 projections and their scales."""
    layers = dict(frozen["layers"])
    for name in layers.keys() & PROJECTIONS:
        whole = layers[name].shape
        layers[name] = jax.ShapeDtypeStruct(whole, jnp.int8)
        layers[scale_name(name)] = jax.ShapeDtypeStruct(whole[: -input_dims(name)], jnp.float32)
    return frozen | {"layers": layers}


def scales(matrix: np.ndarray) -> np.ndarray:
    """The scale of each row (output) of a float32 matrix. A row of zeros has scale 1."""
    largest = np.abs(matrix.astype(np.float32)).max(axis=1)
    return np.where(largest > 0, largest / LARGEST, 1).astype(np.float32)


def quantize(weight: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The integers of a projection, or of a part of it, with these scales for its outputs."""
    wide = scale.reshape(*scale.shape, *[1] * (weight.ndim - scale.ndim))
    return np.rint(weight.astype(np.float32) / wide).astype(np.int8)
