"""A second, independent decoder, as plain as possible: one row, no padding, float64, loops over layers and queries.

It shares only the names of the weights with the package, so that an error in one is not an error in both. Adapters are
given per layer; a missing layer has none.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxprefix.models.config import DecoderConfig

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Extras:
    """The adapter of one layer."""

    prefix: tuple[Floats, Floats] | None = None  # keys and values [P, K, H] in the text's softmax
    gated: tuple[Floats, Floats, Floats] | None = None  # keys and values [P, K, H] apart, and the gate [N]
    added: Mapping[str, Callable[[Floats], Floats]] = field(default_factory=dict)  # to a projection's output
    gain: Mapping[str, Floats] = field(default_factory=dict)  # factors on a projection's output, after `added`
    after_attention: Callable[[Floats], Floats] = lambda x: x
    after_feed_forward: Callable[[Floats], Floats] = lambda x: x


def logits(
    config: DecoderConfig,
    frozen: Any,
    tokens: Any,
    extras: Mapping[int, Extras] | None = None,
    prompt: Any = None,
    record: list[tuple[Floats, Floats, Floats]] | None = None,
) -> Floats:
    """`[P+T, V]` for one row of T tokens behind a prompt of P vectors.

    `record` collects what each layer's attention reads, and its keys, not rotated, and values.
    """
    stream = wide(frozen["embed_tokens"])[np.asarray(tokens)]
    if prompt is not None:
        stream = np.concatenate([wide(prompt), stream])
    for number in range(config.layers):
        weights = {name: wide(leaf[number]) for name, leaf in frozen["layers"].items()}
        stream = layer(config, weights, stream, (extras or {}).get(number, Extras()), record)
    head = frozen["embed_tokens"] if config.tied else frozen["lm_head"]
    return norm(config, stream, wide(frozen["norm"])) @ wide(head).T


def layer(
    config: DecoderConfig, weights: dict[str, Floats], stream: Floats, extras: Extras, record: list | None
) -> Floats:
    def project(name: str, inputs: Floats) -> Floats:
        """`[T, in...]` -> `[T, out...]`; o_proj contracts heads and head size."""
        dims = 2 if name == "o_proj" else 1
        outputs = np.tensordot(inputs, weights[name], (list(range(-dims, 0)), list(range(-dims, 0))))
        return (outputs + (extras.added[name](inputs) if name in extras.added else 0)) * extras.gain.get(name, 1)

    inputs = norm(config, stream, weights["input_layernorm"])
    query, key, value = (project(name, inputs) for name in ("q_proj", "k_proj", "v_proj"))
    if record is not None:
        record.append((inputs, key, value))
    query, key = rope(config, query), rope(config, key)
    read = np.zeros_like(query)
    for time in range(len(stream)):
        start = 0 if config.window is None else max(time + 1 - config.window, 0)
        keys, values = key[start : time + 1], value[start : time + 1]
        if extras.prefix is not None:
            keys = np.concatenate([extras.prefix[0], keys])
            values = np.concatenate([extras.prefix[1], values])
        for head in range(config.heads):
            group = head // (config.heads // config.kv_heads)
            read[time, head] = softmax_mean(query[time, head], keys[:, group], values[:, group])
            if extras.gated is not None:
                own = softmax_mean(query[time, head], extras.gated[0][:, group], extras.gated[1][:, group])
                read[time, head] += extras.gated[2][head] * own
    stream = stream + extras.after_attention(project("o_proj", read))
    inputs = norm(config, stream, weights["post_attention_layernorm"])
    gate = project("gate_proj", inputs)
    inner = gate / (1 + np.exp(-gate)) * project("up_proj", inputs)
    return stream + extras.after_feed_forward(project("down_proj", inner))


def softmax_mean(query: Floats, keys: Floats, values: Floats) -> Floats:
    scores = np.exp(keys @ query / np.sqrt(len(query)))
    return scores @ values / scores.sum()


def rope(config: DecoderConfig, heads: Floats, first: int = 0) -> Floats:
    """Heads `[T, G, H]` at positions first, first+1, ...: each pair (j, j+H/2) is a complex number that is turned."""
    half = config.head_size // 2
    frequencies = config.rope.theta ** (-np.arange(half) / half)
    angles = np.arange(first, first + len(heads))[:, None, None] * frequencies
    turned = (heads[..., :half] + 1j * heads[..., half:]) * np.exp(1j * angles)
    return np.concatenate([turned.real, turned.imag], axis=-1)


def norm(config: DecoderConfig, stream: Floats, scale: Floats) -> Floats:
    return scale * stream / np.sqrt((stream**2).mean(-1, keepdims=True) + config.norm_epsilon)


def wide(array: Any) -> Floats:
    return np.asarray(array, np.float64)
