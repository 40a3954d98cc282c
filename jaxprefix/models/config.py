"""DecoderConfig: the config.json of a decoder of the Llama line in Hugging Face format, read strictly.

What changes a number is used or refused by name; `config_keys` says which keys these are. A port that skips keys in
silence ends with a wrong rotary base or without its sliding window.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jaxprefix.errors import InputError
from jaxprefix.io.messages import short_repr
from jaxprefix.io.strict_json import read_object
from jaxprefix.io.values import LARGEST_SIZE, flag, number, positive
from jaxprefix.models import config_keys, config_rope
from jaxprefix.models.config_keys import MOST_POSITIONS, Problems
from jaxprefix.models.config_rope import Rope, read_rope
from jaxprefix.models.families import FAMILIES, LayerKind, architecture_of, text_values

__all__ = ["DecoderConfig", "LayerKind", "Rope", "layer_range", "notes"]

MOST_LAYERS = 10_000


@dataclass(frozen=True)
class DecoderConfig:
    """The sizes of a decoder. Hashable, so that it can be a static argument. hooks.py explains the letters."""

    vocabulary_size: int  # V, `vocab_size`
    hidden_size: int  # D
    intermediate_size: int  # F
    layers: int  # L, `num_hidden_layers`
    heads: int  # N, `num_attention_heads`
    kv_heads: int  # K, `num_key_value_heads`
    head_size: int  # H, `head_dim`
    norm_epsilon: float  # `rms_norm_eps`
    rope: Rope
    max_positions: int  # `max_position_embeddings`
    tied: bool = False  # `tie_word_embeddings`: the head is the embedding
    window: int | None = None  # `sliding_window`: a query attends to this many keys, its own included
    layer_kinds: tuple[LayerKind, ...] = ()  # of each layer, if they differ; otherwise all have `rope` and `window`
    qkv_biases: bool = False
    head_norms: bool = False  # queries and keys have a norm over H before their rotation
    post_norms: bool = False  # attention and feed-forward block have a norm at their end too
    norm_offset: float = 0.0  # is added to the scale of each norm
    activation: Literal["silu", "gelu_tanh"] = "silu"  # of the feed-forward block
    embedding_scale: float = 1.0  # a factor on the embeddings
    query_scale: float = 1.0  # a factor on H^-0.5, the scale of attention scores

    @classmethod
    def read(cls, directory: Path) -> "DecoderConfig":
        """The configuration in `directory/config.json`. An InputError names the file and all its problems."""
        path, values = _settings(directory)
        try:
            return cls.parse(values)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> "DecoderConfig":
        """The configuration from the object of a config.json."""
        values = text_values(values)
        architecture, problems = architecture_of(values), Problems()
        family = FAMILIES[architecture]
        raw = values = family.simplify(values)
        values = {**family.defaults, **config_keys.without_nulls(values)}
        config_keys.check_supported(values, family.activation, problems)
        sizes = _sizes(values, family.optional_kv_heads, problems)
        rope = read_rope(values, architecture, problems)
        kinds = problems.attempt(family.kinds, raw, rope, sizes["num_hidden_layers"] or 1)
        config_keys.check_aliases(values, sizes | {"rope_theta": rope.theta or None}, problems)
        tied = problems.attempt(flag, values, "tie_word_embeddings")
        differences = problems.attempt(family.differences, values)
        problems.check()
        assert kinds is not None and tied is not None and differences is not None, "a value is missing"
        window = next((kind.window for kind in kinds if kind.window is not None), None)
        return cls(
            vocabulary_size=sizes["vocab_size"],
            hidden_size=sizes["hidden_size"],
            intermediate_size=sizes["intermediate_size"],
            layers=sizes["num_hidden_layers"],
            heads=sizes["num_attention_heads"],
            kv_heads=sizes["num_key_value_heads"],
            head_size=sizes["head_dim"],
            norm_epsilon=sizes["rms_norm_eps"],
            rope=rope,
            max_positions=sizes["max_position_embeddings"],
            tied=tied,
            window=window,
            layer_kinds=() if set(kinds) == {LayerKind(rope, window)} else tuple(kinds),
            **differences,
        )

    @property
    def is_llama(self) -> bool:
        """Whether this is a decoder of Llama or Mistral, which have none of the differences of other families."""
        plain = (self.layer_kinds, self.qkv_biases, self.head_norms, self.post_norms, self.activation)
        return plain == ((), False, False, False, "silu")

    @property
    def kinds(self) -> tuple[LayerKind, ...]:
        """The kinds of layers that the model has."""
        return tuple(dict.fromkeys(self.layer_kinds)) or (LayerKind(self.rope, self.window),)

    @property
    def kind_of_layer(self) -> tuple[int, ...]:
        """The index in `kinds` of each layer's kind."""
        return tuple(self.kinds.index(kind) for kind in self.layer_kinds) or (0,) * self.layers


def notes(directory: Path) -> list[str]:
    """Lines about `directory/config.json` for the user: what is ignored, and what it leaves out. It must be valid."""
    path, outer = _settings(directory)
    values = text_values(outer)
    architecture = architecture_of(values)
    family = FAMILIES[architecture]
    unread, missing = config_rope.notes(config_keys.without_nulls(family.simplify(values)), architecture)
    lines = config_keys.ignored_line(values, family.read, unread) + missing
    if values is not outer:
        lines.insert(0, f"{outer['architectures'][0]}: its text model is read, and images are not")
    return [f"{path}: {line}" for line in lines]


def layer_range(text: str, layers: int) -> tuple[int, int]:
    """The layers `first` to `last - 1` of `layers` that `text` names: "all", "top:30", "2:32" or "top".

    "top" is all but the lowest sixteenth: the top 30 of 32, as in the study (arXiv:2510.24619), and all layers of a
    model with fewer than 16.
    """
    if text == "all":
        return 0, layers
    if text == "top":
        return layers // 16, layers
    start, _, end = text.partition(":") if len(text) < 20 else ("", "", "")
    if start == "top" and end.isdecimal() and 1 <= int(end) <= layers:
        return layers - int(end), layers
    if start.isdecimal() and end.isdecimal() and int(start) < int(end) <= layers:
        return int(start), int(end)
    raise InputError(
        f"layers {short_repr(text)} of a model of {layers}; expected all, top, top:N or FIRST:END, such as 2:{layers}"
    )


def _settings(directory: Path) -> tuple[Path, dict[str, Any]]:
    path = directory / "config.json"
    if not path.is_file():
        raise InputError(f"no config.json in {directory}; give a directory in Hugging Face layout")
    return path, read_object(path)


def _sizes(values: Mapping[str, Any], optional_kv_heads: bool, problems: Problems) -> dict[str, Any]:
    """The sizes by their keys in config.json; None where there is a problem."""
    sizes: dict[str, Any] = {}

    def whole(key: str, default: int | None = None, most: int = LARGEST_SIZE) -> int | None:
        sizes[key] = problems.attempt(positive, values, key, default, most)
        return sizes[key]

    whole("vocab_size")
    hidden = whole("hidden_size")
    whole("intermediate_size")
    whole("num_hidden_layers", most=MOST_LAYERS)
    heads = whole("num_attention_heads")
    # transformers' default depends on the family (Llama: all heads, Mistral: 8); only Llama's is safe.
    unknown_heads = heads is None and "num_key_value_heads" not in values
    kv_heads = None if unknown_heads else whole("num_key_value_heads", heads if optional_kv_heads else None)
    unknown_size = (heads is None or hidden is None) and "head_dim" not in values
    head_size = None if unknown_size else whole("head_dim", (hidden or 0) // (heads or 1))
    sizes["rms_norm_eps"] = problems.attempt(number, values, "rms_norm_eps")
    whole("max_position_embeddings", most=MOST_POSITIONS)
    if heads and kv_heads and heads % kv_heads:
        problems.lines.append(f"num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}")
    if head_size and head_size % 2:
        problems.lines.append(f"head_dim {head_size} is odd; rotary embeddings need pairs")
    if heads and head_size and heads * head_size > LARGEST_SIZE:
        problems.lines.append(f"{heads} heads of head_dim {head_size} are wider together than {LARGEST_SIZE}")
    return sizes
