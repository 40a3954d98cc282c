"""A frozen base in eight bits: whole numbers from -127 to 127, and a scale (float32) for each output of a projection.

`q_proj` becomes `q_proj` (int8) and `q_proj_scale` (its output dimensions), and so do the other six; embedding, head
and norms stay as they are. A product is taken with the whole numbers, which bfloat16 holds exactly, and scaled then.
Rounding to the nearest, by the largest of each output: the absmax quantisation of LLM.int8() (arXiv:2208.07339).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxprefix.models.hooks import PROJECTIONS, input_dims

LARGEST = 127


def scale_name(name: str) -> str:
    return f"{name}_scale"


def projection(scale: str) -> str:
    """The name of the projection that has this scale."""
    return scale.removesuffix("_scale")


def is_scale(name: str) -> bool:
    return name.endswith("_scale")


def shapes(frozen: Any) -> Any:
    """The tree of ShapeDtypeStructs with its projections in eight bits."""
    layers = dict(frozen["layers"])
    for name in PROJECTIONS:
        whole = layers[name].shape
        layers[name] = jax.ShapeDtypeStruct(whole, jnp.int8)
        layers[scale_name(name)] = jax.ShapeDtypeStruct(whole[: -input_dims(name)], jnp.float32)
    return frozen | {"layers": layers}


def scales(matrix: np.ndarray) -> np.ndarray:
    """Of each row of a matrix (float32), which is an output. A row of zeros has the scale 1."""
    largest = np.abs(matrix.astype(np.float32)).max(axis=1)
    return np.where(largest > 0, largest / LARGEST, 1).astype(np.float32)


def rounded(weight: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The whole numbers of a projection, or of a part of it, whose outputs have these scales."""
    wide = scale.reshape(*scale.shape, *[1] * (weight.ndim - scale.ndim))
    return np.rint(weight.astype(np.float32) / wide).astype(np.int8)
