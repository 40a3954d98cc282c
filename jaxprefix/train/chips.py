"""The chips that a plan is held against: their memory, and TPU topologies to compile for without any TPU."""

import importlib.util
import os
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jax.sharding import AxisType, Mesh

from jaxprefix import mesh as meshes

GIB = 2**30
Name = Literal["v4", "v5e", "v5p", "v6e", "A100-40", "A100-80", "H100", "H200"]


@dataclass(frozen=True)
class Chip:
    """One device. `memory` is what the maker states, in bytes."""

    name: str
    memory: int
    torus: int = 0  # dimensions in which a TPU's slices grow; 0 is a GPU

    @property
    def usable(self) -> int:
        """What a program may have: JAX takes a share of a GPU's memory, and a TPU keeps some for itself."""
        share = 0.97 if self.torus else float(os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.75"))
        return int(self.memory * share)

    def topology(self, devices: int) -> str | None:
        """The slice of this many chips, such as v5e:2x4; None where there is none."""
        shapes = {
            2: {4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"},
            3: {4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4", 128: "4x4x8", 256: "4x8x8"},
        }
        shape = shapes.get(self.torus, {}).get(devices)
        return f"{self.name}:{shape}" if shape else None


CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", 32 * GIB, 3),
        Chip("v5e", 16 * GIB, 2),
        Chip("v5p", 95 * GIB, 3),
        Chip("v6e", 32 * GIB, 2),
        Chip("A100-40", 40 * GIB),
        Chip("A100-80", 80 * GIB),
        Chip("H100", 80 * GIB),
        Chip("H200", 140 * GIB),
    )
}


def topology_mesh(chip: Chip, text: str) -> Mesh | None:
    """The mesh over a slice of TPUs that need not be there; None where libtpu is not, or has no slice of that size."""
    data, model = meshes.parse(text)
    name = chip.topology(data * model)
    if name is None or importlib.util.find_spec("libtpu") is None:
        return None
    from jax.experimental import topologies

    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # it would ask Google's cloud what machine this is
    devices = np.array(topologies.get_topology_desc(name, "tpu").devices).reshape(data, model)
    return Mesh(devices, ("data", "model"), axis_types=(AxisType.Auto, AxisType.Auto))
