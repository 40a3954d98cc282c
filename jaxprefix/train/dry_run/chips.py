"""Chips, their memory and rates, and TPU topologies to compile for without a TPU."""

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
    """One device, with the figures of its maker. `slices` are the names of TPU topologies by chip count."""

    name: str
    memory: int  # bytes
    flops: float  # per second, of dense products in bfloat16
    bandwidth: float  # of its memory, bytes per second
    links: float  # bytes per second that it receives from other devices, over all its links
    is_gpu: bool = False
    slices: Mapping[int, str] = field(default_factory=dict)

    @property
    def usable(self) -> int:
        """The bytes that a program can use. A TPU reserves some memory.

        Raises InputError if XLA_PYTHON_CLIENT_MEM_FRACTION, JAX's setting for GPUs, is not a fraction.
        """
        return int(self.memory * (_gpu_fraction() if self.is_gpu else 0.97))

    def topology(self, devices: int) -> str | None:
        """The slice with this number of chips, such as v5e:2x4. None if libtpu has no such slice."""
        return f"{self.name}:{self.slices[devices]}" if devices in self.slices else None


def _gpu_fraction() -> float:
    """The fraction of a GPU's memory that JAX uses: three quarters, or the user's setting."""
    text = os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.75")
    try:
        fraction = float(text)
    except ValueError:
        fraction = 0.0
    if not 0 < fraction <= 1:
        raise InputError(f"XLA_PYTHON_CLIENT_MEM_FRACTION is {text!r}; expected a fraction such as 0.9, or unset it")
    return fraction


# https://cloud.google.com/tpu/docs/system-architecture-tpu-vm and NVIDIA's data sheets (A100 and H100 SXM, H200): links
# are half of what is published for both directions.
CHIPS = {
    chip.name: chip
    for chip in (
        # No slices: libtpu describes its two cores as two devices, unlike JAX on a v4.
        Chip("v4", 32 * GIB, 275e12, 1.228e12, 300e9),
        Chip("v5e", 16 * GIB, 197e12, 0.819e12, 200e9, slices=FLAT),
        Chip("v5p", 95 * GIB, 459e12, 2.765e12, 600e9, slices=CUBES),
        Chip("v6e", 32 * GIB, 918e12, 1.640e12, 448e9, slices=FLAT),
        Chip("A100-40", 40 * GIB, 312e12, 1.555e12, 300e9, is_gpu=True),
        Chip("A100-80", 80 * GIB, 312e12, 2.039e12, 300e9, is_gpu=True),
        Chip("H100", 80 * GIB, 989e12, 3.350e12, 450e9, is_gpu=True),
        Chip("H200", 140 * GIB, 989e12, 4.800e12, 450e9, is_gpu=True),
    )
}

# Otherwise libtpu queries Google's cloud for the machine type, and locks chips that are not needed to compile.
COMPILE_ONLY = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


def why_estimated(chip: Chip, devices: int) -> str | None:
    """Why a program cannot be compiled for this number of chips here, or None if it can."""
    if not chip.slices:
        return f"a program for {chip.name} cannot be compiled without the chip"
    if chip.topology(devices) is None:
        return f"a slice of {chip.name} has {', '.join(map(str, chip.slices))} chips, not {devices}"
    if importlib.util.find_spec("libtpu") is None:
        return f"to compile for {chip.topology(devices)}: pip install 'jaxprefix[tpu]'"
    return None


def topology_mesh(chip: Chip, text: str) -> Mesh:
    """The mesh over a slice of TPUs, which need not exist. Requires that `why_estimated` is None."""
    data, model = meshes.parse_mesh(text)
    name = chip.topology(data * model)
    assert name is not None
    from jax.experimental import topologies

    for variable, value in COMPILE_ONLY.items():
        os.environ.setdefault(variable, value)
    devices = np.array(topologies.get_topology_desc(name, "tpu").devices).reshape(data, model)
    return Mesh(devices, ("data", "model"), axis_types=(AxisType.Auto, AxisType.Auto))
