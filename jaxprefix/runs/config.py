"""RunConfig: everything that a run can be repeated from, as run.json keeps it."""

import importlib.util
import math
from dataclasses import asdict, dataclass, field, fields, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal

from jaxprefix.errors import InputError
from jaxprefix.io.messages import short_repr
from jaxprefix.models.adapters import (
    METHODS,
    Adapter,
    BottleneckAdapter,
    LlamaAdapter,
    LoRA,
    PrefixTuning,
    SoftPrompt,
    Sum,
)
from jaxprefix.runs.from_json import from_json

# The methods' learning rates are for models of billions; the embedded one of 3.6M learns best at so many times as much
# (babel-nli, seed 0, English after 488 steps: prefix 63% at 10 times and 81% at 20; lora 62% at 10, 90% at 5;
# bottleneck 85% at 10, 91% at 3; full 93% at 10, 90% at 30).
EMBEDDED_FACTORS = {"prefix": 20, "llama-adapter": 20, "soft-prompt": 20, "lora": 3, "bottleneck": 3, "full": 10}

Dtype = Literal["auto", "float32", "bfloat16", "int8"]
ABOVE_ZERO = tuple("batch accumulate max_length log_every eval_every save_every keep steps epochs limit lr".split())
NOT_NEGATIVE = ("held_out", "clip", "weight_decay", "warmup", "seed")
LARGEST = 2**31 - 1  # of any setting
FRACTIONS = ("epochs", "lr", "clip", "weight_decay", "warmup")


@dataclass(frozen=True)
class RunConfig:
    """Adapts a frozen Llama or Mistral to a task in one language."""

    model: str | None = None
    """A directory in Hugging Face layout, or a hub id with an optional @revision. Left out: the embedded default."""
    method: str = "prefix"
    """none, prefix, llama-adapter, soft-prompt, lora, bottleneck or full; sums are joined with +: prefix+lora."""
    task: str | None = None
    """What is trained: squad, tydiqa, mnli, belebele-mix, gsm8k, xnli, xcopa, mlqa, xlsum, flores, or of the embedded
    world babel-qa (with the embedded model, the default), babel-nli, babel-choice, babel-math or babel-text."""
    language: str | None = None
    """The language that is trained; left out, en, and all the rows of a --train-file."""
    split: str | None = None
    """The split that is trained on; usually train."""
    data: Path | None = None
    """A local mirror of the hub: DATASET/CONFIG/SPLIT.{jsonl,json,parquet,csv}."""
    train_file: Path | None = None
    """Your own rows {"prompt", "response"} in the place of a task."""
    eval_file: Path | None = None
    """Your own held-out rows; left out, rows are held out of the training data."""
    limit: int | None = None
    """Use so many rows of the training data, drawn by the seed; the held-out ones are among them."""

    steps: int | None = None
    """Steps of the optimizer; in the place of --epochs."""
    epochs: float | None = None
    """Passes over the data; 2, as in the study, where neither is given."""
    batch: int = 16
    """Rows a step."""
    accumulate: int = 1
    """Micro-batches that a step's rows are split into, to save memory."""
    max_length: int = 512
    """Tokens a row, prompt and response; longer contexts are cut."""
    chat: bool = False
    """Put prompts into the model's chat template, in training and evaluation alike."""

    lr: float | None = None
    """The peak learning rate; left out, the method's own."""
    warmup: float = 0.05
    """Share of the steps in which the learning rate rises."""
    weight_decay: float = 0.02
    clip: float = 1.0
    """The adapter's gradient norm is clipped to this; 0 turns it off."""
    dtype: Dtype = "auto"
    """Of the frozen weights; auto is bfloat16 on accelerators and float32 on CPU, int8 that with its projections in
    eight bits: half the memory. The adapter is always float32."""
    remat: Literal["none", "dots", "full"] = "dots"
    """What the backward pass computes again: nothing, all but matrix products, or everything."""
    seed: int = 0

    mesh: str | None = None
    """DATAxMODEL, such as 4x2; left out, all devices x 1."""
    platform: Literal["cpu", "cuda", "tpu"] | None = None
    """Where to run; cpu emulates any mesh."""
    held_out: int = 100
    """Rows of the training language that are kept out and scored during training."""
    log_every: int = 10
    """Steps between rows of metrics.jsonl."""
    eval_every: int = 50
    """Steps between scores of the held-out rows."""
    save_every: int = 50
    """Steps between checkpoints."""
    keep: int = 2
    """Checkpoints that are kept: the last so many, and the best by held-out loss besides."""
    on_nan: Literal["stop", "skip"] = "stop"
    """Where a step's loss or gradient is not finite: stop with what was learnt before, or skip the step and go on."""
    tensorboard: bool = False
    """Also write TensorBoard events (pip install 'jaxprefix[tensorboard]')."""
    wandb: str | None = None
    """Also log to this Weights & Biases project (pip install 'jaxprefix[wandb]')."""

    prefix: PrefixTuning = field(default_factory=PrefixTuning)
    llama_adapter: LlamaAdapter = field(default_factory=LlamaAdapter)
    soft_prompt: SoftPrompt = field(default_factory=SoftPrompt)
    lora: LoRA = field(default_factory=LoRA)
    bottleneck: BottleneckAdapter = field(default_factory=BottleneckAdapter)

    def check(self) -> None:
        """InputError, in one line, for settings that cannot be or that contradict each other."""
        self.adapter  # noqa: B018 - refuses an unknown method, or a sum that cannot be, early
        self.check_numbers()
        for flag, wanted, package in (
            ("tensorboard", self.tensorboard, "tensorboardX"),
            ("wandb", self.wandb, "wandb"),
        ):
            if wanted and importlib.util.find_spec(package) is None:
                raise InputError(f"--{flag} needs an extra: pip install 'jaxprefix[{flag}]'")
        if self.steps is not None and self.epochs is not None:
            raise InputError(f"--steps {self.steps} and --epochs {self.epochs} both say how long to train; give one")
        if self.dtype == "int8" and "full" in self.method.split("+"):
            raise InputError(f"--dtype int8 is of weights that stay as they are, --method {self.method} learns them")
        if self.dtype == "int8" and self.remat == "none":
            raise InputError(
                "--dtype int8 with --remat none would keep every layer in 16 bits too; choose dots or full"
            )
        if self.batch % self.accumulate:
            raise InputError(
                f"--batch {self.batch} cannot be split into --accumulate {self.accumulate} equal micro-batches"
            )
        if self.task and self.train_file:
            raise InputError(
                f"--task {self.task} and --train-file {self.train_file} both say what to train on; give one"
            )

    def check_numbers(self) -> None:
        """InputError for a number that cannot be, whatever the others are."""
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
        if self.warmup > 1:
            raise InputError(f"--warmup is {self.warmup}; expected a share of the steps, from 0 to 1")

    @property
    def adapter(self) -> Adapter:
        """The chosen method with its settings, or the sum of the chosen ones."""
        methods = parse_method(self.method)
        members = [(kind.method, getattr(self, _field(kind)) if fields(kind) else kind()) for kind in methods]
        return members[0][1] if len(members) == 1 else Sum(tuple(members))

    def with_adapter(self, adapter: Adapter) -> "RunConfig":
        """The same for another method: the inverse of `adapter`."""
        members: Any = [member for _, member in adapter.members] if isinstance(adapter, Sum) else [adapter]
        own: dict[str, Any] = {_field(member): member for member in members if fields(member)}
        return replace(self, method="+".join(member.method for member in members), **own)

    @property
    def learning_rates(self) -> dict[str, float]:
        """The peak of each method: the one that was given, or its own."""
        factors = {} if self.model else EMBEDDED_FACTORS
        return {
            kind.method: self.lr or kind.learning_rate * factors.get(kind.method, 1)
            for kind in parse_method(self.method)
        }

    def as_json(self) -> dict[str, Any]:
        """Plain values, with the settings of the chosen methods only."""
        values = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}
        chosen = [_field(kind) for kind in parse_method(self.method)]
        return {name: value for name, value in values.items() if name not in OWN_FLAGS or name in chosen}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "RunConfig":
        """The inverse of `as_json`; InputError for what it cannot have written."""
        config = from_json(cls, values)
        config.check_numbers()
        config.adapter  # noqa: B018 - refuses what cannot be, as `check` does
        return config


def _field(kind: Any) -> str:
    """Where RunConfig keeps the method's own settings."""
    return kind.method.replace("-", "_")


OWN_FLAGS: dict[str, type] = {_field(kind): kind for kind in METHODS if fields(kind)}


def parse_method(text: str) -> list[type[Any]]:
    """ "prefix+lora" -> the classes of its methods."""
    known = {method.method: method for method in METHODS}
    names = text.split("+")
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(
            f"--method {short_repr(text)}: {short_repr(unknown[0])} is unknown; expected {', '.join(known)}, "
            "or a sum such as prefix+lora"
        )
    if len(names) > len(known):
        raise InputError(f"--method {short_repr(text)} names {len(names)} methods; expected each at most once")
    return [known[name] for name in names]


def refuse_foreign_flags(arguments: list[str], method: str) -> None:
    """A flag of a method that is not chosen would be without effect: a InputError."""
    chosen = [_field(kind) for kind in parse_method(method)]
    for argument in arguments:
        flag = argument.partition("=")[0]
        name, dot, _ = flag.removeprefix("--").replace("-", "_").partition(".")
        if flag.startswith("--") and dot and name in OWN_FLAGS and name not in chosen:
            owner = OWN_FLAGS[name].method  # type: ignore[attr-defined]
            raise InputError(f"{flag} belongs to method {owner}, but --method is {method}; drop it or choose {owner}")
