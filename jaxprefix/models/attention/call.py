"""What the choice of a kernel depends on: shapes, and the mesh that the program is traced for."""

from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import AbstractMesh, AxisType

BLOCK = 128  # of queries and keys: what TPUs compute at once. Scores of fewer tokens are small: XLA may keep them
RESIDUALS = "attention"  # what a kernel names that its backward pass wants: output, and log of the softmax's sum
AXES = ("data", "model")  # of the mesh: rows are sharded over the first, heads over the second


@dataclass(frozen=True)
class Call:
    """An ordinary call of attention: right-padded rows of text behind the slots of a prefix, all devices together."""

    rows: int
    time: int
    heads: int
    kv_heads: int
    size: int
    dtype: Any
    slots: int  # of the prefix
    window: int | None

    @property
    def narrow(self) -> bool:
        """Whether Mistral's window hides any of the text."""
        return self.window is not None and self.window < self.time


def mesh() -> AbstractMesh:
    """That of the surrounding `jax.sharding.use_abstract_mesh`; empty where there is none."""
    return jax.sharding.get_abstract_mesh()


def platform() -> str:
    """cpu, gpu or tpu: what the program is traced for.

    The mesh knows: the process that compiles for a TPU may have none. Without a mesh it is JAX's own default.
    """
    device = mesh().abstract_device
    if device is None:
        return jax.default_backend()
    return "tpu" if device.device_kind.startswith("TPU") else "cpu" if device.device_kind == "cpu" else "gpu"


def cannot_be_divided(call: Call) -> str | None:
    """Why the call cannot be cut into one call a device, each with its own rows and heads."""
    where = mesh()
    if where.empty:
        return None
    if where.axis_names != AXES or any(kind != AxisType.Auto for kind in where.axis_types):
        return f"the mesh is {where}; expected automatic axes data and model"
    data, model = where.axis_sizes
    if call.rows % data or call.kv_heads % model:
        return f"{call.rows} rows and {call.kv_heads} key heads cannot be divided by the mesh {data}x{model}"
    return None
