"""Matrix products `x Wᵀ`, in the form that the platform computes fastest.

On CPU the form matters. XLA copies the right side of a product. It has fast kernels for bfloat16 and int8 only if the
result is float32 or int32, and otherwise converts the operands to float32. A processor with AMX is 5 times as fast with
bfloat16 as with float32, and 10 times with int8.
"""

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Shaped

from jaxprefix.models.attention import platform
from jaxprefix.models.processor import has_instructions

FEW_ROWS = 32  # on CPU, products of at most this many rows are 1.3 to 2 times as fast with the weight on the left
# A number that is a sum of so few products, as behind a low rank, is computed again faster than it is written and read.
FEW_TERMS = 128
PRODUCT = "product"  # the name of a result to keep for the backward pass that is made of products in another dtype
LARGEST = 127 * 2**16  # of the integers that three bytes of -128 to 127 make
TINY = 1e-30  # the scale of a row of zeros


def matmul(
    inputs: Float[Array, "M I"], matrix: Float[Array, "O I"], dtype: DTypeLike | None = None
) -> Float[Array, "M O"]:
    """`x Wᵀ` in `dtype`; without it, in that of the inputs."""
    if inputs.dtype == jnp.bfloat16 and platform() == "cpu" and has_instructions("bfloat16"):
        product = _kept(_bfloat16(inputs, matrix.astype(inputs.dtype)), matrix)
        return product if dtype == jnp.float32 else _narrow(product)
    return _sided(inputs, matrix.astype(inputs.dtype), dtype)


def int8_matmul(inputs: Float[Array, "M I"], matrix: Int[Array, "O I"]) -> Float[Array, "M O"]:
    """`x Wᵀ` in float32 of an int8 weight (int8.py). The weight is read as bytes, and never exists as floats.

    On CPU each row of the inputs is rounded to integers of 24 bits, relative to its largest, and multiplied as three
    rows of int8; so is its gradient. Other platforms, and processors without instructions for int8, convert the weight
    within the product.
    """
    if platform() == "cpu" and has_instructions("int8"):
        return _kept(_integers(inputs.astype(jnp.float32), matrix), matrix)
    return _kept(_sided(inputs, _not_before(matrix, inputs).astype(inputs.dtype), jnp.float32), matrix)


def _kept(product: Float[Array, "M O"], matrix: Shaped[Array, "O I"]) -> Float[Array, "M O"]:
    return checkpoint_name(product, PRODUCT) if matrix.shape[1] > FEW_TERMS else product


def _not_before(weight: Int[Array, "..."], inputs: Float[Array, "..."]) -> Int[Array, "..."]:
    """The weight, in a form that XLA cannot convert before the inputs are known.

    Otherwise XLA on CPU converts the weights of all layers at once: its scheduler ignores optimization barriers. The
    condition is always true, and is computed in the conversion.
    """
    bits = jax.lax.convert_element_type(inputs.reshape(-1)[0] > 0, jnp.int32)
    return jnp.where(bits >= 0, weight, 0)


def _dot(
    left: Shaped[Array, "..."], right: Shaped[Array, "..."], left_dim: int, right_dim: int, dtype: DTypeLike | None
):
    return jax.lax.dot_general(left, right, (((left_dim,), (right_dim,)), ((), ())), preferred_element_type=dtype)


def _sided(inputs: Shaped[Array, "M I"], matrix: Shaped[Array, "O I"], dtype: DTypeLike | None) -> Shaped[Array, "M O"]:
    """`x Wᵀ`, and with few rows on CPU `(W xᵀ)ᵀ`."""
    rows = inputs.shape[0]
    if rows > FEW_ROWS or platform() != "cpu":
        return _dot(inputs, matrix, 1, 1, dtype)
    if rows == 1 and inputs.dtype in (jnp.bfloat16, jnp.int8):  # XLA has no fast kernel for a single row of these
        inputs = jnp.concatenate([inputs, jnp.zeros_like(inputs)])
    turned = jax.lax.optimization_barrier(_dot(matrix, inputs, 1, 1, dtype))  # else XLA swaps the sides again
    return turned.T[:rows]


def _narrow(product: Float[Array, "..."]) -> Float[Array, "..."]:
    """The product in bfloat16. Without the barrier XLA would ask for a product in bfloat16."""
    return jax.lax.optimization_barrier(product).astype(jnp.bfloat16)


@jax.custom_vjp  # the gradients are products in bfloat16 too
def _bfloat16(inputs: Float[Array, "M I"], matrix: Float[Array, "O I"]) -> Float[Array, "M O"]:
    return _sided(inputs, matrix, jnp.float32)


def _bfloat16_forward(inputs: Array, matrix: Array) -> tuple[Array, tuple[Array, Array]]:
    return _bfloat16(inputs, matrix), (inputs, matrix)


def _bfloat16_backward(kept: tuple[Array, Array], gradient: Float[Array, "M O"]) -> tuple[Array, Array]:
    (inputs, matrix), gradient = kept, gradient.astype(jnp.bfloat16)
    of_inputs, of_matrix = _dot(gradient, matrix, 1, 0, jnp.float32), _dot(gradient, inputs, 0, 0, jnp.float32)
    return _narrow(of_inputs), _narrow(of_matrix)


_bfloat16.defvjp(_bfloat16_forward, _bfloat16_backward)


@jax.custom_vjp  # rounding has no gradient
def _integers(inputs: Float[Array, "M I"], matrix: Int[Array, "O I"]) -> Float[Array, "M O"]:
    parts, scale = _split(inputs)
    return _join(_sided(parts, matrix, jnp.int32), scale)


def _integers_forward(inputs: Array, matrix: Array) -> tuple[Array, Array]:
    return _integers(inputs, matrix), matrix


def _integers_backward(matrix: Int[Array, "O I"], gradient: Float[Array, "M O"]) -> tuple[Array, None]:
    parts, scale = _split(gradient)
    return _join(_dot(parts, matrix, 1, 0, jnp.int32), scale), None


_integers.defvjp(_integers_forward, _integers_backward)


def _split(inputs: Float[Array, "M I"]) -> tuple[Int[Array, "3*M I"], Float[Array, "M 1"]]:
    """The three bytes of each row, rounded to integers of 24 bits, and its scale."""
    scale = jnp.maximum(jnp.max(jnp.abs(inputs), axis=1, keepdims=True), TINY) / LARGEST
    whole = jnp.round(inputs / scale).astype(jnp.int32)
    upper = (whole + 128) >> 8  # the rest is from -128 to 127
    high = (upper + 128) >> 8
    parts = jnp.stack([high, upper - (high << 8), whole - (upper << 8)], axis=1)
    return jax.lax.optimization_barrier(parts.astype(jnp.int8).reshape(-1, inputs.shape[1])), scale


def _join(products: Int[Array, "3*M O"], scale: Float[Array, "M 1"]) -> Float[Array, "M O"]:
    high, middle, low = jnp.moveaxis(products.astype(jnp.float32).reshape(-1, 3, products.shape[1]), 1, 0)
    return ((high * 256 + middle) * 256 + low) * scale
