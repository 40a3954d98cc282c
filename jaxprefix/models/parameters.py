"""The weights of the decoder, one row each: name on disk, dimensions, role.

The rest follows from this table: shapes, initial values, checkpoints, shardings, int8 and weight decay.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

from jaxprefix.models.config import DecoderConfig

LAYER = "model.layers.{}."
Role = Literal["embedding", "projection", "norm", "bias", "scale"]


@dataclass(frozen=True)
class Weight:
    """A weight of the model, or one weight of each layer. The sizes are those of one layer."""

    name: str  # in the tree of weights
    key: str  # the Hugging Face name, with a place for the number of the layer
    dims: str  # in the letters of hooks.py
    role: Role
    exists: Callable[[DecoderConfig], bool] = lambda config: True  # whether a model of this configuration has it

    @property
    def in_layers(self) -> bool:
        return self.key.startswith(LAYER)

    def shape(self, config: DecoderConfig) -> tuple[int, ...]:
        sizes = {
            "V": config.vocabulary_size,
            "D": config.hidden_size,
            "F": config.intermediate_size,
            "N": config.heads,
            "K": config.kv_heads,
            "H": config.head_size,
        }
        return tuple(sizes[letter] for letter in self.dims)

    def keys(self, config: DecoderConfig) -> list[str]:
        """The names on disk: one, or one for each layer."""
        return [self.key.format(layer) for layer in range(config.layers)] if self.in_layers else [self.key]

    @property
    def folded(self) -> int | None:
        """The index of the dimension of heads. On disk it and the next, H, are one dimension."""
        return next((index for index, letter in enumerate(self.dims) if letter in "NK"), None)

    def disk_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape on disk of a part with this shape."""
        if (heads := self.folded) is None:
            return shape
        return (*shape[:heads], shape[heads] * shape[heads + 1], *shape[heads + 2 :])


def bias_name(projection: str) -> str:
    return f"{projection}_bias"


def _projection(module: str, name: str, dims: str) -> Weight:
    return Weight(name, f"{LAYER}{module}.{name}.weight", dims, "projection")


WEIGHTS = (
    Weight("embed_tokens", "model.embed_tokens.weight", "VD", "embedding"),
    Weight("norm", "model.norm.weight", "D", "norm"),
    Weight("lm_head", "lm_head.weight", "VD", "embedding", lambda config: not config.tied),
    Weight("input_layernorm", LAYER + "input_layernorm.weight", "D", "norm"),
    Weight("post_attention_layernorm", LAYER + "post_attention_layernorm.weight", "D", "norm"),
    *(
        Weight(name, f"{LAYER}{name}.weight", "D", "norm", lambda config: config.post_norms)
        for name in ("pre_feedforward_layernorm", "post_feedforward_layernorm")
    ),
    *(
        Weight(name, f"{LAYER}self_attn.{name}.weight", "H", "norm", lambda config: config.head_norms)
        for name in ("q_norm", "k_norm")
    ),
    *(
        Weight(bias_name(name), f"{LAYER}self_attn.{name}.bias", dims, "bias", lambda config: config.qkv_biases)
        for name, dims in (("q_proj", "NH"), ("k_proj", "KH"), ("v_proj", "KH"))
    ),
    _projection("self_attn", "q_proj", "NHD"),
    _projection("self_attn", "k_proj", "KHD"),
    _projection("self_attn", "v_proj", "KHD"),
    _projection("self_attn", "o_proj", "DNH"),
    _projection("mlp", "gate_proj", "FD"),
    _projection("mlp", "up_proj", "FD"),
    _projection("mlp", "down_proj", "DF"),
)
EMBEDDING, HEAD = (row.key for row in WEIGHTS if row.role == "embedding")
PROJECTIONS = tuple(row.name for row in WEIGHTS if row.role == "projection")
NORMS_AND_BIASES = frozenset(row.name for row in WEIGHTS if row.role in ("norm", "bias"))


@cache
def weights_of(config: DecoderConfig) -> dict[str, Weight]:
    """The weights of a model, by name."""
    return {row.name: row for row in WEIGHTS if row.exists(config)}


def scale_of(row: Weight) -> Weight:
    """The scales of an int8 projection (int8.py): one number for each output. They are not on disk."""
    dims = row.dims[: len(row.dims) - input_dims(row.name)]
    return Weight(f"{row.name}_scale", "", dims, "scale")


def input_dims(projection: str) -> int:
    """How many trailing dimensions a projection contracts: 2 for o_proj, which reads [N, H], and 1 for the others."""
    return 2 if projection == "o_proj" else 1


BY_NAME = {row.name: row for row in (*WEIGHTS, *(scale_of(row) for row in WEIGHTS if row.role == "projection"))}


def module_path(projection: str) -> str:
    """The module of a projection, with a place for the number of the layer: `model.layers.{}.self_attn.q_proj`."""
    return BY_NAME[projection].key.removesuffix(".weight")
