"""The mesh of devices, data × model. Batches are sharded over `data`; models/sharding.py shards weights."""

import os
import re
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxprefix.distributed import compilation_cache, processes
from jaxprefix.errors import InputError

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
Tree = TypeVar("Tree")


def parse_mesh(text: str) -> tuple[int, int]:
    """ "4x2" -> (4, 2): data × model."""
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if not match:
        raise InputError(f"--mesh {text!r} is not a mesh; expected DATAxMODEL, such as 4x2")
    return int(match[1]), int(match[2])


def configure_platform(text: str | None, platform: str | None, others: str | None = None) -> str | None:
    """Selects the platform, connects to the other processes and, on CPU, emulates the devices of the mesh.

    It must be called before JAX starts. Returns a line for the user if devices are emulated, else None.
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
        raise InputError("--hosts auto needs accelerators; on CPU give ADDRESS:PORT,PROCESS/PROCESSES")
    if needed % count:
        raise InputError(
            f"--mesh {text} has {needed} devices, which is not a multiple of {count} processes; choose another mesh"
        )
    jax.config.update("jax_num_cpu_devices", needed // count)
    return f"mesh {text}: emulated by {needed} CPU devices; this is slower than 1x1, and only for trying and testing"


def _has_accelerator() -> bool:
    """Whether JAX has a plugin for accelerators. It must not start here: the number of CPU devices is set later."""
    if os.environ.get("JAX_PLATFORMS", "").split(",")[0] == "cpu":
        return False
    from importlib.util import find_spec

    return any(find_spec(name) for name in ("jax_cuda12_plugin", "jax_cuda13_plugin", "libtpu", "jax_rocm7_plugin"))


def make_mesh(text: str | None = None) -> Mesh:
    """The mesh over the first devices; without `text`, over all devices × 1."""
    start_jax()
    data, model = (jax.device_count(), 1) if text is None else parse_mesh(text)
    if data * model > jax.device_count():
        available = f"{jax.device_count()} {jax.devices()[0].platform}"
        raise InputError(
            f"--mesh {text} needs {data * model} devices, found {available}; --platform cpu emulates any mesh"
        )
    if processes.process_count() > 1 and data * model < jax.device_count():
        raise InputError(
            f"--mesh {text} has {data * model} of the {jax.device_count()} devices of {processes.process_count()} "
            "processes; with several processes it must have all devices"
        )
    devices = jax.devices()[: data * model]
    return jax.make_mesh((data, model), ("data", "model"), (AxisType.Auto, AxisType.Auto), devices=devices)


def start_jax() -> None:
    """Starts JAX. InputError if it cannot use the platform."""
    compilation_cache.enable()
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # AssertionError if the plugin for cuda is missing
        name = jax.config.jax_platforms  # type: ignore[attr-defined]
        why = str(error) or "its plugin is not installed"
        raise InputError(f"JAX cannot use {name} here ({why}); choose --platform cpu") from None


def with_mesh(mesh: Mesh, function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """`function` for `jax.jit`. models/sharding.py reads the mesh while it is traced."""

    @wraps(function)
    def run(*arguments: Arguments.args, **keywords: Arguments.kwargs) -> Result:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*arguments, **keywords)

    return run


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of arrays that every device has completely."""
    return NamedSharding(mesh, P())


def shard_batch(mesh: Mesh, tree: Tree, dim: int = 0) -> Tree:
    """Puts NumPy arrays, the same in all processes, on the mesh, sharded over `data` at dimension `dim`."""
    sharding = batch_sharding(mesh, dim)
    if processes.process_count() == 1:
        return jax.device_put(tree, sharding)
    return jax.tree.map(lambda leaf: jax.make_array_from_callback(leaf.shape, sharding, leaf.__getitem__), tree)


def batch_sharding(mesh: Mesh, dim: int = 0) -> NamedSharding:
    """The sharding of batches: over `data` at dimension `dim`, replicated otherwise."""
    return NamedSharding(mesh, P(*[None] * dim, "data"))
