"""The chips that a plan is held against: their memory, and TPU topologies to compile for without any TPU."""

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jax.sharding import AxisType, Mesh

from jaxprefix.distributed import mesh as meshes
from jaxprefix.errors import InputError

GIB = 2**30
Name = Literal["v4", "v5e", "v5p", "v6e", "A100-40", "A100-80", "H100", "H200"]

FLAT = {4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
CUBES = {4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4", 128: "4x4x8", 256: "4x8x8"}


@dataclass(frozen=True)
class Chip:
    """One device. `memory` is what the maker states, in bytes; `slices` are what its TPU topologies are called."""

    name: str
    memory: int
    is_gpu: bool = False
    slices: Mapping[int, str] = field(default_factory=dict)

    @property
    def usable(self) -> int:
        """Bytes that a program may have. A TPU keeps some for itself.

        Raises InputError where XLA_PYTHON_CLIENT_MEM_FRACTION, JAX's setting for GPUs, is no share.
        """
        return int(self.memory * (_gpu_share() if self.is_gpu else 0.97))

    def topology(self, devices: int) -> str | None:
        """The slice of so many chips, such as v5e:2x4; None where there is none to compile for."""
        return f"{self.name}:{self.slices[devices]}" if devices in self.slices else None


def _gpu_share() -> float:
    """JAX takes three quarters of a GPU's memory, or what the user tells it to."""
    text = os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.75")
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise InputError(f"XLA_PYTHON_CLIENT_MEM_FRACTION is {text!r}; expected a share such as 0.9, or unset it")
    return share


CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", 32 * GIB),  # libtpu describes its two cores as two devices, which JAX on a v4 does not
        Chip("v5e", 16 * GIB, slices=FLAT),
        Chip("v5p", 95 * GIB, slices=CUBES),
        Chip("v6e", 32 * GIB, slices=FLAT),
        Chip("A100-40", 40 * GIB, is_gpu=True),
        Chip("A100-80", 80 * GIB, is_gpu=True),
        Chip("H100", 80 * GIB, is_gpu=True),
        Chip("H200", 140 * GIB, is_gpu=True),
    )
}

# libtpu would ask Google's cloud what machine this is, and want to be alone with the chips that it does not need here.
COMPILE_ONLY = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


def why_estimated(chip: Chip, devices: int) -> str | None:
    """Why nothing can be compiled for so many of these chips here; None where it can."""
    if not chip.slices:
        return f"{chip.name} is not there to compile for"
    if chip.topology(devices) is None:
        return f"a slice of {chip.name} has {', '.join(map(str, chip.slices))} chips, not {devices}"
    if importlib.util.find_spec("libtpu") is None:
        return f"to compile for {chip.topology(devices)}: pip install 'jaxprefix[tpu]'"
    return None


def topology_mesh(chip: Chip, text: str) -> Mesh:
    """The mesh over a slice of TPUs that need not be there, where nothing stands against it (`why_estimated`)."""
    data, model = meshes.parse_mesh(text)
    name = chip.topology(data * model)
    assert name is not None
    from jax.experimental import topologies

    for variable, value in COMPILE_ONLY.items():
        os.environ.setdefault(variable, value)
    devices = np.array(topologies.get_topology_desc(name, "tpu").devices).reshape(data, model)
    return Mesh(devices, ("data", "model"), axis_types=(AxisType.Auto, AxisType.Auto))
