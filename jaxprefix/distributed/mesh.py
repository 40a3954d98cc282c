"""The mesh of devices, data × model. Batches are sharded over `data`; models/sharding.py says how weights are."""

import os
import re
from functools import wraps
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxprefix.distributed import compilation_cache, processes
from jaxprefix.errors import InputError


def parse_mesh(text: str) -> tuple[int, int]:
    """ "4x2" -> (4, 2): data × model."""
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if not match:
        raise InputError(f"--mesh {text!r} is not a mesh; expected DATAxMODEL, such as 4x2")
    return int(match[1]), int(match[2])


def configure_platform(text: str | None, platform: str | None, others: str | None = None) -> str | None:
    """Before JAX starts: picks the platform, meets the other processes and, on CPU, emulates the devices of the mesh.

    Returns the line that tells the user of the emulation, if there is any.
    """
    if platform:
        jax.config.update("jax_platforms", platform)
    count = processes.initialize(others) if others else 1
    needed = 1 if text is None else parse_mesh(text)[0] * parse_mesh(text)[1]
    if needed == 1 or (not platform and _has_accelerator()):
        return None
    if platform not in (None, "cpu"):
        return None
    if count is None:
        raise InputError("--hosts auto is for accelerators; on CPU give ADDRESS:PORT,PROCESS/PROCESSES")
    if needed % count:
        raise InputError(f"--mesh {text} has {needed} devices, which {count} processes cannot share; choose another")
    jax.config.update("jax_num_cpu_devices", needed // count)
    return f"mesh {text}: emulated by {needed} CPU devices, which is slower than 1x1; it is for trying and testing"


def _has_accelerator() -> bool:
    """Whether JAX would find more than CPUs; asked without starting its CPU client, whose size is still to be set."""
    if os.environ.get("JAX_PLATFORMS", "").split(",")[0] == "cpu":
        return False
    from importlib.util import find_spec

    return any(find_spec(name) for name in ("jax_cuda12_plugin", "jax_cuda13_plugin", "libtpu", "jax_rocm7_plugin"))


def make_mesh(text: str | None = None) -> Mesh:
    """The mesh over the first devices; left out, all devices × 1."""
    start_jax()
    data, model = (jax.device_count(), 1) if text is None else parse_mesh(text)
    if data * model > jax.device_count():
        found = f"{jax.device_count()} {jax.devices()[0].platform}"
        raise InputError(f"--mesh {text} needs {data * model} devices, found {found}; --platform cpu emulates any mesh")
    if processes.process_count() > 1 and data * model < jax.device_count():
        raise InputError(
            f"--mesh {text} has {data * model} of the {jax.device_count()} devices of {processes.process_count()} "
            "processes; a mesh of several processes must have all"
        )
    devices = jax.devices()[: data * model]
    return jax.make_mesh((data, model), ("data", "model"), (AxisType.Auto, AxisType.Auto), devices=devices)


def start_jax() -> None:
    """Starts JAX; InputError if it cannot use the platform."""
    compilation_cache.enable()
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter is how JAX misses the plugin of cuda
        name = jax.config.jax_platforms  # type: ignore[attr-defined]
        why = str(error) or "its plugin is not installed"
        raise InputError(f"JAX cannot use {name} here ({why}); choose --platform cpu") from None


def with_mesh(mesh: Mesh, function: Any) -> Any:
    """`function` for jit, traced for the mesh: models/sharding.py reads the mesh while it is traced."""

    @wraps(function)
    def run(*arguments: Any) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*arguments)

    return run


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, P())


def shard_batch(mesh: Mesh, tree: Any, dim: int = 0) -> Any:
    """Arrays of numpy, the same in all processes, on the mesh: shared by `data` at `dim`."""
    place = batch_sharding(mesh, dim)
    if processes.process_count() == 1:
        return jax.device_put(tree, place)
    return jax.tree.map(lambda leaf: jax.make_array_from_callback(leaf.shape, place, leaf.__getitem__), tree)


def batch_sharding(mesh: Mesh, dim: int = 0) -> NamedSharding:
    """Sharded over `data` at dimension `dim`, whole otherwise: how batches lie."""
    return NamedSharding(mesh, P(*[None] * dim, "data"))
