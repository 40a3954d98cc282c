"""Which keys of a config.json matter, and what of it is refused or ignored.

The reference is transformers' class for the architecture, which reads a fixed set of keys. A key that it does not read
cannot change the reference's numbers, so it is ignored, and `notes` names it. A key that it reads and that is not built
here is refused, and so is a second name of a size with another value.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from jaxprefix.errors import InputError
from jaxprefix.io.messages import short_repr, truncate
from jaxprefix.io.values import flag

T = TypeVar("T")
Values = Mapping[str, Any]

MOST_POSITIONS = 2**31 - 1
# Keys that transformers' classes read, and that change no logit without dropout (the tokenizer handles the token ids).
INERT = frozenset(
    "architectures model_type transformers_version torch_dtype dtype use_cache initializer_range pretraining_tp "
    "attention_dropout bos_token_id eos_token_id pad_token_id _name_or_path name_or_path is_decoder is_encoder_decoder "
    "add_cross_attention return_dict output_attentions output_hidden_states chunk_size_feed_forward id2label label2id "
    "problem_type".split()
)
READ = frozenset(
    "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim "
    "hidden_act max_position_embeddings rms_norm_eps rope_theta rope_scaling rope_parameters partial_rotary_factor "
    "attention_bias mlp_bias tie_word_embeddings sliding_window layer_types".split()
)
# Other names of what changes a number. No class here reads them, but a file in which they differ contradicts itself.
ALIASES = {
    "num_hidden_layers": ("num_layers", "n_layer", "n_layers"),
    "num_attention_heads": ("num_heads", "n_head", "n_heads"),
    "num_key_value_heads": ("num_kv_heads", "n_kv_heads", "num_query_groups"),
    "hidden_size": ("d_model", "n_embd"),
    "intermediate_size": ("ffn_hidden_size", "ffn_dim", "n_inner"),
    "head_dim": ("kv_channels", "head_size"),
    "rms_norm_eps": ("norm_eps", "norm_epsilon", "rms_norm_epsilon", "layernorm_epsilon"),
    "rope_theta": ("rope_base", "rotary_base", "rotary_emb_base"),
}
SILU = ("silu", "swish")  # two names of one function


class Problems:
    """Collects the problems of a file, so that one message names them all."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def attempt(self, read: Callable[..., T], *arguments: Any) -> T | None:
        """The result of `read(*arguments)`; None, and one problem more, if it raises an InputError."""
        try:
            return read(*arguments)
        except InputError as error:
            if str(error) not in self.lines:
                self.lines.append(str(error))
            return None

    def check(self) -> None:
        """InputError if there are any."""
        if len(self.lines) == 1:
            raise InputError(self.lines[0])
        if self.lines:
            numbered = " ".join(f"({number}) {line}" for number, line in enumerate(self.lines, 1))
            raise InputError(f"{len(self.lines)} problems: {numbered}")


def without_nulls(values: Values) -> dict[str, Any]:
    """The keys that have a value: null is the same as a missing key."""
    return {name: value for name, value in values.items() if value is not None}


def check_supported(values: Values, activation: tuple[str, Sequence[str]], problems: Problems) -> None:
    """Adds a problem for each setting that the classes read and that is not built here.

    `activation` is the key of the activation function, and the values that are built.
    """
    for check in (_quantization, _layers_that_differ):
        problems.attempt(check, values)
    problems.attempt(_activation, values, *activation)
    for bias in ("attention_bias", "mlp_bias"):
        problems.attempt(_no_bias, values, bias)


def check_aliases(values: Values, known: Values, problems: Problems) -> None:
    """Adds a problem for each alias that contradicts a known value."""
    for key, aliases in ALIASES.items():
        for alias in aliases:
            if known.get(key) is not None and alias in values and values[alias] != known[key]:
                problems.lines.append(
                    f"{alias} {short_repr(values[alias])} contradicts {key} {known[key]}; expected one value"
                )


def ignored(values: Values, read: Iterable[str] = ()) -> list[str]:
    """The keys that transformers' class does not read, sorted. `read` are those that only this class reads."""
    return sorted(set(without_nulls(values)) - READ - INERT - set(read))


def ignored_line(values: Values, read: Iterable[str], more: list[str]) -> list[str]:
    """One line that names all ignored keys and `more`, as a list; an empty list if there are none."""
    names = [truncate(name, 60) for name in [*ignored(values, read), *more]]
    if not names:
        return []
    architecture = values["architectures"][0]
    code = f"; {architecture} is built in, and the repository's own code is not run" if "auto_map" in names else ""
    return [f"ignored, as transformers' {architecture} does not read them: {', '.join(names)}{code}"]


def _quantization(values: Values) -> None:
    for key in ("quantization_config", "compression_config"):
        if key in values:
            settings = values[key] if isinstance(values[key], dict) else {}
            method = settings.get("quant_method", settings.get("quantization_method"))
            named = f" of {short_repr(method)}" if method else ""
            raise InputError(
                f"{key}{named} is not supported: quantized weights are not read; "
                "give the model's weights in float32, bfloat16 or float16"
            )


def _layers_that_differ(values: Values) -> None:
    if values.get("per_layer_config"):
        raise InputError("per_layer_config is not supported; expected layers that all have the same settings")


def _activation(values: Values, read: str, built: Sequence[str]) -> None:
    for key in ("hidden_act", "hidden_activation", "activation_function"):
        if values.get(key, None if key == read else built[0]) not in tuple(built):
            raise InputError(f"{key} {short_repr(values.get(key))} is not supported; expected {built[0]!r}")


def _no_bias(values: Values, key: str) -> None:
    if flag(values, key):
        raise InputError(f"{key} is true; models with biases are not supported")
