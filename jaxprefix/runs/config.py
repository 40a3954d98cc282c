"""RunConfig: all settings of a run. run.json stores them, so that the run can be repeated."""

import importlib.util
import math
from dataclasses import asdict, dataclass, field, fields, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal

from jaxprefix.errors import InputError
from jaxprefix.io.hub import expanded
from jaxprefix.io.messages import short_repr, similar
from jaxprefix.models.adapters import (
    IA3,
    METHODS,
    Adapter,
    BottleneckAdapter,
    FullFineTuning,
    LlamaAdapter,
    LoRA,
    Method,
    PrefixTuning,
    SoftPrompt,
    Sum,
)
from jaxprefix.runs.from_json import from_json
from jaxprefix.text.chat_template import parse_date

Dtype = Literal["auto", "float32", "bfloat16", "int8"]
ABOVE_ZERO = tuple("batch accumulate max_length log_every eval_every save_every keep steps epochs limit lr".split())
NOT_NEGATIVE = ("held_out", "clip", "weight_decay", "warmup", "seed")
LARGEST = 2**31 - 1  # the limit of every setting
FRACTIONS = ("epochs", "lr", "clip", "weight_decay", "warmup")


@dataclass(frozen=True)
class RunConfig:
    """Adapts a frozen Llama or Mistral to a task in one language."""

    model: str | None = None
    """A directory in Hugging Face layout, or a Hub id with an optional @revision. The default is the embedded model."""
    method: str = "prefix"
    """none, prefix, llama-adapter, soft-prompt, lora, bottleneck, ia3, full, or a sum such as prefix+lora."""
    task: str | None = None
    """The task to train on: squad, tydiqa, mnli, belebele-mix, gsm8k, xnli, xcopa, mlqa, xlsum, flores,
    or of the embedded world: babel-qa (the embedded default), babel-nli, babel-choice, babel-math, babel-text."""
    language: str | None = None
    """The training language. The default is en, or all rows of a --train-file."""
    split: str | None = None
    """The training split. The default is that of the task, usually train."""
    data: Path | None = None
    """A local mirror of the Hub's data sets: DATASET/CONFIG/SPLIT.{jsonl,json,parquet,csv,tsv}, or what
    `hf download DATASET --repo-type dataset --local-dir DATA/DATASET` writes."""
    train_file: Path | None = None
    """Your own training rows {"prompt", "response"}, instead of a task."""
    eval_file: Path | None = None
    """Your own held-out rows. The default is to hold out a part of the training data."""
    limit: int | None = None
    """Use only this many rows of the data, sampled with the seed. The held-out rows count."""

    steps: int | None = None
    """Optimizer steps, instead of --epochs."""
    epochs: float | None = None
    """Passes over the data. Without --steps the default is 2, as in the study."""
    batch: int = 16
    """Rows per step."""
    accumulate: int = 1
    """Micro-batches per step. More of them need less memory."""
    max_length: int = 512
    """Tokens per row, prompt and response together. Longer contexts are truncated."""
    chat: bool = False
    """Use the model's chat template, in training and in evaluation."""
    chat_date: str | None = None
    """The current date for a chat template that writes it, such as 2024-07-26. The default is the day of the start."""

    lr: float | None = None
    """The peak learning rate. The default depends on the method."""
    warmup: float = 0.05
    """The fraction of the steps in which the learning rate rises."""
    weight_decay: float = 0.02
    """AdamW's weight decay. Prompts, prefixes, gates, factors, magnitudes, norms and biases have none."""
    clip: float = 1.0
    """The norm that the adapter's gradient is clipped to; 0 turns clipping off."""
    dtype: Dtype = "auto"
    """The dtype of the frozen weights: auto is bfloat16 on accelerators and float32 on CPU.
    With int8, the projections are quantized, which halves the memory. The adapter is always float32."""
    remat: Literal["none", "dots", "full"] = "dots"
    """What the backward pass recomputes: nothing, all but matrix products, or everything."""
    seed: int = 0
    """The seed of the initial parameters, the order of the rows, and dropout."""

    mesh: str | None = None
    """The device mesh, DATAxMODEL, such as 4x2. The default is all devices x 1."""
    platform: Literal["cpu", "cuda", "tpu"] | None = None
    """The platform to run on. cpu emulates a mesh of any size."""
    held_out: int = 100
    """Rows of the training language to hold out and score during training, at most a tenth."""
    log_every: int = 10
    """Steps between rows of metrics.jsonl."""
    eval_every: int = 50
    """Steps between evaluations of the held-out loss."""
    save_every: int = 50
    """Steps between checkpoints."""
    keep: int = 2
    """The number of latest checkpoints to keep. The one with the best held-out loss is kept as well."""
    on_nan: Literal["stop", "skip"] = "stop"
    """If a step's loss or gradient is not finite: stop and keep the parameters before it, or skip the step."""
    tensorboard: bool = False
    """Also write TensorBoard events (pip install 'jaxprefix[tensorboard]')."""
    wandb: str | None = None
    """Also log to this Weights & Biases project (pip install 'jaxprefix[wandb]')."""
    trackio: str | None = None
    """Also log to this project of trackio (pip install 'jaxprefix[trackio]')."""

    prefix: PrefixTuning = field(default_factory=PrefixTuning)
    llama_adapter: LlamaAdapter = field(default_factory=LlamaAdapter)
    soft_prompt: SoftPrompt = field(default_factory=SoftPrompt)
    lora: LoRA = field(default_factory=LoRA)
    bottleneck: BottleneckAdapter = field(default_factory=BottleneckAdapter)
    ia3: IA3 = field(default_factory=IA3)
    full: FullFineTuning = field(default_factory=FullFineTuning)

    def check(self) -> None:
        """InputError if a setting is invalid or contradicts another."""
        self.adapter  # noqa: B018 - refuses an unknown method or an invalid sum early
        self.check_numbers()
        for flag, enabled, package in (
            ("tensorboard", self.tensorboard, "tensorboardX"),
            ("wandb", self.wandb, "wandb"),
            ("trackio", self.trackio, "trackio"),
        ):
            if enabled and importlib.util.find_spec(package) is None:
                raise InputError(f"--{flag} needs an extra: pip install 'jaxprefix[{flag}]'")
        if self.steps is not None and self.epochs is not None:
            raise InputError(f"--steps {self.steps} and --epochs {self.epochs} both say how long to train; give one")
        if self.dtype == "int8" and "full" in self.method.split("+"):
            raise InputError(
                f"--dtype int8 is for frozen weights, but --method {self.method} trains them; choose another dtype"
            )
        if self.dtype == "int8" and self.remat == "none":
            raise InputError(
                "--dtype int8 with --remat none would also keep every layer in 16 bits; choose --remat dots or full"
            )
        if self.batch % self.accumulate:
            raise InputError(
                f"--batch {self.batch} cannot be split into --accumulate {self.accumulate} equal micro-batches"
            )
        if self.chat_date is not None and not self.chat:
            raise InputError(f"--chat-date {self.chat_date} belongs to --chat; add --chat, or drop it")
        if self.task and self.train_file:
            raise InputError(
                f"--task {self.task} and --train-file {self.train_file} both say what to train on; give one"
            )

    def check_numbers(self) -> None:
        """InputError if a number or the date is invalid by itself."""
        for name in ABOVE_ZERO + NOT_NEGATIVE:
            value = getattr(self, name)
            if value is not None and not isinstance(value, Real if name in FRACTIONS else Integral):
                expected = "a number" if name in FRACTIONS else "a whole number"
                raise InputError(f"--{name.replace('_', '-')} is {short_repr(value)}; expected {expected}")
            if value is not None and (not value < math.inf or value < 0 or (value == 0 and name in ABOVE_ZERO)):
                expected = "more than 0" if name in ABOVE_ZERO else "0 or more"
                raise InputError(f"--{name.replace('_', '-')} is {value}; expected {expected}")
            if value is not None and float(value) > LARGEST:
                raise InputError(f"--{name.replace('_', '-')} is {short_repr(value)}; expected at most {LARGEST}")
        if self.seed >= 2**32:
            raise InputError(f"--seed is {self.seed}; expected less than 2^32")
        if self.chat_date is not None:
            parse_date(self.chat_date)
        if self.warmup > 1:
            raise InputError(f"--warmup is {self.warmup}; expected a fraction of the steps, from 0 to 1")

    @property
    def adapter(self) -> Adapter:
        """The chosen method with its settings, or the sum of the chosen methods."""
        methods = parse_method(self.method)
        members = [(kind.method, getattr(self, _field(kind)) if fields(kind) else kind()) for kind in methods]
        return members[0][1] if len(members) == 1 else Sum(tuple(members))

    def with_adapter(self, adapter: Adapter) -> "RunConfig":
        """This configuration with another adapter: the inverse of `adapter`."""
        members: Any = [member for _, member in adapter.members] if isinstance(adapter, Sum) else [adapter]
        settings: dict[str, Any] = {_field(member): member for member in members if fields(member)}
        return replace(self, method="+".join(member.method for member in members), **settings)

    @property
    def learning_rates(self) -> dict[str, float]:
        """The peak learning rate of each method: `lr`, or the default of the method.

        The defaults suit models with billions of parameters. The embedded model has 3.6M and learns best with multiples
        of them (babel-nli, seed 0, English after 488 steps: prefix 63% at 10 times and 81% at 20; lora 62% at 10, 90%
        at 5; bottleneck 85% at 10, 91% at 3; full 93% at 10, 90% at 30).
        """
        return {
            kind.method: self.lr or kind.learning_rate * (1 if self.model else kind.embedded_factor)
            for kind in parse_method(self.method)
        }

    def as_json(self) -> dict[str, Any]:
        """JSON values, with the settings of the chosen methods only."""
        values = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}
        chosen = [_field(kind) for kind in parse_method(self.method)]
        return {name: value for name, value in values.items() if name not in METHOD_SETTINGS or name in chosen}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "RunConfig":
        """The inverse of `as_json`. InputError for values that `as_json` does not write."""
        config = from_json(cls, values)
        config.check_numbers()
        config.adapter  # noqa: B018 - refuses an invalid method, as `check` does
        return config


def model_label(model: str | None) -> str:
    """The name of `--model` without the directories or the organization before it, for titles and tables."""
    return "embedded" if model is None else expanded(model).name


def _field(kind: type[Method] | Method) -> str:
    """The field of RunConfig with the settings of this method."""
    return kind.method.replace("-", "_")


METHOD_SETTINGS: dict[str, type[Method]] = {_field(kind): kind for kind in METHODS if fields(kind)}


def parse_method(text: str) -> list[type[Method]]:
    """ "prefix+lora" -> the classes of its methods."""
    known = {method.method: method for method in METHODS}
    names = text.split("+")
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(
            f"--method {short_repr(text)}: {short_repr(unknown[0])} is unknown; expected {', '.join(known)}, "
            f"or a sum such as prefix+lora{similar(unknown[0], known)}"
        )
    if len(names) > len(known):
        raise InputError(f"--method {short_repr(text)} names {len(names)} methods; expected each at most once")
    return [known[name] for name in names]


def refuse_foreign_flags(arguments: list[str], method: str) -> None:
    """InputError for a flag of a method that is not chosen: it would have no effect."""
    chosen = [_field(kind) for kind in parse_method(method)]
    for argument in arguments:
        flag = argument.partition("=")[0]
        name, dot, _ = flag.removeprefix("--").replace("-", "_").partition(".")
        if flag.startswith("--") and dot and name in METHOD_SETTINGS and name not in chosen:
            owner = METHOD_SETTINGS[name].method
            raise InputError(f"{flag} belongs to method {owner}, but --method is {method}; drop it or choose {owner}")
