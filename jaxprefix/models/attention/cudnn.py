"""cuDNN's fused attention on NVIDIA GPUs, which is square and causal and saves no scores.

Dummy queries precede the text as the prefix precedes its keys, and their outputs are dropped. A layer without the
prefix has both after its text, where causality hides them:

    queries: dummies · text            text · dummies
    keys:    prefix · text             text · prefix

Causality also hides the padding of a right-padded row from its text. The outputs of padding are never used.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jax.extend.backend import get_backend
from jaxtyping import Array, Bool, Float

from jaxprefix.models.attention.call import BLOCK, AttentionShape, why_not_divisible

Implementation = Literal["cudnn", "xla"]  # "xla" computes the same layout without a GPU, for tests


def why_unsupported(call: AttentionShape) -> str | None:
    """Why cuDNN cannot compute this call, or None."""
    if call.dtype not in (jnp.bfloat16, jnp.float16):
        return f"cuDNN needs half precision, not {jnp.dtype(call.dtype).name}"
    if call.time < BLOCK:
        return f"fewer tokens than a block of {BLOCK}"
    if call.narrow and call.slots:
        return f"cuDNN's window of {call.window} would hide the prefix"
    version = capability()
    largest = 256 if version >= 9 else 128
    if version < 8:
        return f"cuDNN needs an NVIDIA GPU of compute capability 8.0, found {version}"
    if call.size % 8 or call.size > largest:
        return f"head size {call.size} is not a multiple of 8 up to {largest}"
    return why_not_divisible(call)  # JAX partitions this kernel, but only into equal parts


def capability() -> float:
    """The compute capability of the GPU of this process; 0 if NVIDIA did not make it."""
    cuda = "cuda" in get_backend().platform_version
    return float(jax.local_devices(backend="gpu")[0].compute_capability) if cuda else 0.0


def attend(
    query: Float[Array, "B T N H"],
    keys: Float[Array, "B S K H"],
    values: Float[Array, "B S K H"],
    present: Bool[Array, ""] | None,
    window: int | None,
    implementation: Implementation = "cudnn",
) -> Float[Array, "B T N H"]:
    """Attention of text to a prefix of S - T virtual tokens, if `present`, and to the text up to each token.

    `present` depends on the layer. It is None if no layer has a prefix.
    """
    time = query.shape[1]
    slots = keys.shape[1] - time
    if not slots:
        return _causal(query, keys, values, None if window is None or window >= time else window, implementation)
    assert window is None or window >= time, "the window would count the prefix"
    assert present is not None
    start = jnp.where(present, 0, slots)

    def part(states: Array, start: Array, length: int) -> Array:
        return jax.lax.dynamic_slice_in_dim(states, start, length, axis=1)

    def around(states: Array) -> Array:
        """prefix · text, or text · prefix."""
        return part(jnp.concatenate([states, states[:, :slots]], axis=1), start, slots + time)

    dummies = jnp.pad(query, [(0, 0), (slots, slots), (0, 0), (0, 0)])
    read = _causal(part(dummies, start, slots + time), around(keys), around(values), None, implementation)
    return part(read, slots - start, time)


def _causal(query: Array, keys: Array, values: Array, window: int | None, implementation: Implementation) -> Array:
    """Square causal attention. cuDNN differentiates only an even length, so an odd one gets a token at its end."""
    length = query.shape[1]
    even = [jnp.pad(states, [(0, 0), (0, length % 2), (0, 0), (0, 0)]) for states in (query, keys, values)]
    sides = None if window is None else (window - 1, 0)
    read = jax.nn.dot_product_attention(*even, is_causal=True, local_window_size=sides, implementation=implementation)
    return read[:, :length]
