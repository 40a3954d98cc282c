"""The least work of a step: the FLOPs and bytes that no implementation can avoid. Attention is not counted."""

from jaxprefix.models.config import DecoderConfig


def training_flops(sizes: DecoderConfig, tokens: int, learnt: int, full: bool = False) -> float:
    """The FLOPs of a step: forward and gradients of activations, and of weights if `full`; without recomputation."""
    return (6 if full else 4) * needed_products(sizes, tokens, learnt)


def needed_products(sizes: DecoderConfig, tokens: int, read: int) -> int:
    """Parameters times tokens, if the head reads only `read` of the tokens.

    The last layer then computes only keys and values for the other tokens.
    """
    width, layer = sizes.hidden_size, layer_parameters(sizes)
    keys_and_values = 2 * width * sizes.kv_heads * sizes.head_size
    last_layer = keys_and_values * tokens + (layer - keys_and_values) * read
    return (sizes.layers - 1) * layer * tokens + last_layer + head_parameters(sizes) * read


def decode_bytes(sizes: DecoderConfig, rows: int, slots: float, width: int, layer_width: int) -> float:
    """The bytes that a step of generation reads: all weights, and the cache of `slots` tokens per row.

    A number has `width` bytes, and in the weights of the layers `layer_width`.
    """
    cache = 2 * sizes.layers * sizes.kv_heads * sizes.head_size * rows * slots
    return sizes.layers * layer_parameters(sizes) * layer_width + (head_parameters(sizes) + cache) * width


def layer_parameters(sizes: DecoderConfig) -> int:
    """The number of parameters in the projections of one layer."""
    width, heads = sizes.hidden_size, (2 * sizes.heads + 2 * sizes.kv_heads) * sizes.head_size
    return width * (heads + 3 * sizes.intermediate_size)


def head_parameters(sizes: DecoderConfig) -> int:
    return sizes.vocabulary_size * sizes.hidden_size
