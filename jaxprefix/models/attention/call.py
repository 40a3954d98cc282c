"""The shapes and the mesh that the choice of a kernel depends on."""

from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import AbstractMesh, AxisType

BLOCK = 128  # queries and keys that a TPU computes at once; the scores of fewer tokens are small enough for XLA
RESIDUALS = "attention"  # the name of what a kernel saves for its backward pass: output and logsumexp
AXES = ("data", "model")  # mesh axes: rows are sharded over the first, heads over the second


@dataclass(frozen=True)
class AttentionShape:
    """The shape of a call of attention on right-padded rows after a prefix, over all devices."""

    rows: int
    time: int
    heads: int
    kv_heads: int
    size: int
    dtype: Any
    slots: int  # virtual tokens of the prefix
    window: int | None

    @property
    def narrow(self) -> bool:
        """Whether Mistral's window hides any of the text."""
        return self.window is not None and self.window < self.time


def mesh() -> AbstractMesh:
    """The mesh of the surrounding `jax.sharding.use_abstract_mesh`, or an empty one."""
    return jax.sharding.get_abstract_mesh()


def platform() -> str:
    """cpu, gpu or tpu: the platform that the program is traced for.

    It comes from the mesh, because a process can compile for a TPU that it does not have. Without a mesh it is JAX's
    default.
    """
    device = mesh().abstract_device
    if device is None:
        return jax.default_backend()
    return "tpu" if device.device_kind.startswith("TPU") else "cpu" if device.device_kind == "cpu" else "gpu"


def why_not_divisible(call: AttentionShape) -> str | None:
    """Why the rows and heads cannot be divided among the devices, or None."""
    where = mesh()
    if where.empty:
        return None
    if where.axis_names != AXES or any(kind != AxisType.Auto for kind in where.axis_types):
        return f"the mesh is {where}; expected automatic axes data and model"
    data, model = where.axis_sizes
    if call.rows % data or call.kv_heads % model:
        return f"{call.rows} rows and {call.kv_heads} key heads cannot be divided by the mesh {data}x{model}"
    return None
