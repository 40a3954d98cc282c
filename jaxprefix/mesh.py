"""The mesh of devices, data × model, and where every weight lies on it: names to PartitionSpec, with no catch-all.

A weight is sharded over both axes: its output (heads, feed-forward, vocabulary) over `model`, its input over `data`.
Batches are sharded over `data`; the small adapter is whole on every device.
"""

import os
import re
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

# Dimensions of every leaf of decoder.init. Where the model axis does not divide the heads, their input ("data") is
# sharded over both axes: half a head on a device would be turned by RoPE in two places.
DIMS = {
    "embed_tokens": ("model", "data"),
    "lm_head": ("model", "data"),
    "norm": (None,),
    "input_layernorm": (None, None),
    "post_attention_layernorm": (None, None),
    "q_proj": (None, "heads", None, "data"),
    "k_proj": (None, "heads", None, "data"),
    "v_proj": (None, "heads", None, "data"),
    "o_proj": (None, "data", "heads", None),
    "gate_proj": (None, "model", "data"),
    "up_proj": (None, "model", "data"),
    "down_proj": (None, "data", "model"),
}

# Leaves of adapters: small, and whole on every device.
WHOLE = frozenset(
    "hidden keys values gate prompt a b down up slots inner inner_bias hidden_map hidden_bias keys_map keys_bias "
    "values_map values_bias".split()
)


def parse(text: str) -> tuple[int, int]:
    """ "4x2" -> (4, 2): data × model."""
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if not match:
        raise ValueError(f"--mesh {text!r} is not a mesh; expected DATAxMODEL, such as 4x2")
    return int(match[1]), int(match[2])


def prepare(text: str | None, platform: str | None) -> str | None:
    """Before JAX wakes: picks the platform and, on CPU, as many emulated devices as the mesh needs.

    Returns the line that tells the user of the emulation, if there is any.
    """
    if platform:
        jax.config.update("jax_platforms", platform)
    needed = 1 if text is None else parse(text)[0] * parse(text)[1]
    if needed == 1 or (not platform and _accelerated()):
        return None
    if platform not in (None, "cpu"):
        return None
    jax.config.update("jax_num_cpu_devices", needed)
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
    devices = jax.devices()[: data * model]
    return jax.make_mesh((data, model), ("data", "model"), (AxisType.Auto, AxisType.Auto), devices=devices)


def _wake() -> None:
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
    if name in WHOLE:
        return P()
    if name not in DIMS:
        raise ValueError(f"no place on the mesh is known for the parameter {jax.tree_util.keystr(path)}")
    dims = DIMS[name]
    whole = "heads" not in dims or shape[dims.index("heads")] % mesh.shape["model"] == 0
    axes = {
        "heads": "model" if whole else None,
        "data": "data" if whole else ("data", "model"),
        "model": "model",
        None: None,
    }
    for dim, size in zip(dims, shape, strict=True):
        axis = axes[dim]
        parts = mesh.size if isinstance(axis, tuple) else mesh.shape[axis] if axis else 1
        if size % parts:
            given = "x".join(str(size) for size in mesh.shape.values())
            raise ValueError(
                f"--mesh {given}: {name} {list(shape)} cannot be divided by {parts} ({axis}) at its {size}; "
                "choose a divisor"
            )
    return P(*(axes[dim] for dim in dims))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, P())


def over_data(mesh: Mesh, dim: int = 0) -> NamedSharding:
    """Sharded over `data` at dimension `dim`, whole otherwise: how batches lie."""
    return NamedSharding(mesh, P(*[None] * dim, "data"))
