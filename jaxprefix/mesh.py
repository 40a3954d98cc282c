"""The mesh of devices, data × model, and where every weight lies on it: names to PartitionSpec, with no catch-all.

A weight is sharded over both axes, its output (heads, feed-forward, vocabulary) over `model` and its input over
`data`, as models/places.py says. Batches are sharded over `data`; a small adapter is whole on every device.
"""

import math
import os
import re
from functools import wraps
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxprefix import compiled, hosts
from jaxprefix.models import places

# Leaves of adapters. They are whole on every device; beyond so many numbers (16 MiB, three times with the optimizer's)
# they are shared by all devices, as a LoRA of rank 64 on a model of 8B is.
ADAPTERS = frozenset(
    "hidden keys values gate prompt a b down up slots inner inner_bias hidden_map hidden_bias keys_map keys_bias "
    "values_map values_bias".split()
)
LARGE = 2**22


def parse(text: str) -> tuple[int, int]:
    """ "4x2" -> (4, 2): data × model."""
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if not match:
        raise ValueError(f"--mesh {text!r} is not a mesh; expected DATAxMODEL, such as 4x2")
    return int(match[1]), int(match[2])


def prepare(text: str | None, platform: str | None, others: str | None = None) -> str | None:
    """Before JAX wakes: picks the platform, meets the other processes (hosts.py) and, on CPU, emulates as many devices
    as the mesh needs.

    Returns the line that tells the user of the emulation, if there is any.
    """
    if platform:
        jax.config.update("jax_platforms", platform)
    processes = hosts.join(others) if others else 1
    needed = 1 if text is None else parse(text)[0] * parse(text)[1]
    if needed == 1 or (not platform and _accelerated()):
        return None
    if platform not in (None, "cpu"):
        return None
    if processes is None:
        raise ValueError("--hosts auto is for accelerators; on CPU give ADDRESS:PORT,PROCESS/PROCESSES")
    if needed % processes:
        raise ValueError(
            f"--mesh {text} has {needed} devices, which {processes} processes cannot share; choose another"
        )
    jax.config.update("jax_num_cpu_devices", needed // processes)
    return f"mesh {text}: emulated by {needed} CPU devices, which is slower than 1x1; it is for trying and testing"


def _accelerated() -> bool:
    """Whether JAX would find more than CPUs; asked without starting its CPU client, whose size is still to be set."""
    if os.environ.get("JAX_PLATFORMS", "").split(",")[0] == "cpu":
        return False
    from importlib.util import find_spec

    return any(find_spec(name) for name in ("jax_cuda12_plugin", "jax_cuda13_plugin", "libtpu", "jax_rocm7_plugin"))


def make(text: str | None = None) -> Mesh:
    """The mesh over the first devices; left out, all devices × 1."""
    _wake()
    data, model = (jax.device_count(), 1) if text is None else parse(text)
    if data * model > jax.device_count():
        found = f"{jax.device_count()} {jax.devices()[0].platform}"
        raise ValueError(f"--mesh {text} needs {data * model} devices, found {found}; --platform cpu emulates any mesh")
    if hosts.count() > 1 and data * model < jax.device_count():
        raise ValueError(
            f"--mesh {text} takes {data * model} of the {jax.device_count()} devices of {hosts.count()} processes; "
            "a mesh of several processes takes all"
        )
    devices = jax.devices()[: data * model]
    return jax.make_mesh((data, model), ("data", "model"), (AxisType.Auto, AxisType.Auto), devices=devices)


def _wake() -> None:
    compiled.keep()
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter is how JAX misses the plugin of cuda
        name = jax.config.jax_platforms  # type: ignore[attr-defined]
        why = str(error) or "its plugin is not installed"
        raise ValueError(f"JAX cannot use {name} here ({why}); choose --platform cpu") from None


def shardings(mesh: Mesh, shapes: Any) -> Any:
    """Shardings like `shapes` (weights, or an adapter's parameters); ValueError where a dimension cannot be divided."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: NamedSharding(mesh, spec(mesh, path, leaf.shape)), shapes
    )


def spec(mesh: Mesh, path: tuple, shape: tuple[int, ...]) -> P:
    """Where the leaf at `path` lies."""
    name = path[-1].key
    if name in ADAPTERS:
        return _large(mesh, shape)
    if name not in places.DIMS:
        raise ValueError(f"no place on the mesh is known for the parameter {jax.tree_util.keystr(path)}")
    layers = [()] * (len(shape) - len(places.DIMS[name]))  # their stack is whole
    axes = (*layers, *places.axes(name, shape[len(layers) :], mesh.shape))
    for shared, size in zip(axes, shape, strict=True):
        if size % (parts := places.parts(shared, mesh.shape)):
            given = "x".join(str(size) for size in mesh.shape.values())
            raise ValueError(
                f"--mesh {given}: {name} {list(shape)} cannot be divided by {parts} ({' and '.join(shared)}) at its "
                f"{size}; choose a divisor"
            )
    return places.spec(axes)


def _large(mesh: Mesh, shape: tuple[int, ...]) -> P:
    """Shares an adapter's large leaf at the widest dimension that goes round; never at its layers, which are picked."""
    fitting = [place for place in range(1, len(shape)) if shape[place] % mesh.size == 0]
    if math.prod(shape) < LARGE or not fitting:
        return P()
    widest = max(fitting, key=lambda place: shape[place])
    return P(*[None] * widest, ("data", "model"))


def traced(mesh: Mesh, function: Any) -> Any:
    """`function` for jit: traced for the mesh, so that the decoder can ask where things shall lie (places.py)."""

    @wraps(function)
    def run(*arguments: Any) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*arguments)

    return run


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, P())


def put(mesh: Mesh, tree: Any, dim: int = 0) -> Any:
    """Arrays of numpy, the same in all processes, on the mesh: shared by `data` at `dim`."""
    place = over_data(mesh, dim)
    if hosts.count() == 1:
        return jax.device_put(tree, place)
    return jax.tree.map(lambda leaf: jax.make_array_from_callback(leaf.shape, place, leaf.__getitem__), tree)


def over_data(mesh: Mesh, dim: int = 0) -> NamedSharding:
    """Sharded over `data` at dimension `dim`, whole otherwise: how batches lie."""
    return NamedSharding(mesh, P(*[None] * dim, "data"))
