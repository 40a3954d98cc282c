"""The settings of an evaluation, which are its command-line flags."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jaxprefix.errors import InputError
from jaxprefix.evaluation.predictions import PREDICTIONS
from jaxprefix.io.atomic import check_writable, entries
from jaxprefix.models.sampling import Sampling


@dataclass(frozen=True)
class Evaluation:
    """Scores a run in the languages of one or more tasks."""

    task: str | None = None
    """Comma-separated tasks, such as xquad,xnli; None means the benchmarks of the trained task."""
    languages: str | None = None
    """Comma-separated codes, such as de,hi,sw; under-1B means those with fewer words of text in FineWeb2, a sign of low
    resources; None means all languages of the task."""
    split: str | None = None
    """The split to evaluate on, such as validation; None means the split of each task's published results."""
    eval_file: Path | None = None
    """Your own rows {"prompt", "response"}, optionally with "language" and "choices", instead of a task."""
    data: Path | None = None
    """A local mirror of the Hub; None means the mirror that the run was trained with."""
    shots: int = 0
    """Few-shot examples before every question, from the training data of the benchmark."""
    shots_language: str = "source"
    """The language of the examples: source (the run's), target (that of the question) or a code, such as en."""
    shots_split: str | None = None
    """The split of the examples; None means the training split."""
    limit: int | None = None
    """Rows per language, spread over the file: the same questions in every language. None means all."""
    batch: int = 32
    """Rows per batch."""
    max_length: int | None = None
    """Tokens of prompt and answer. Longer contexts are cut. None means the length in training."""
    temperature: float = 0.0
    """Sampling temperature; 0 is greedy."""
    top_k: int = 0
    """Sample from this many of the most likely tokens; 0 is all."""
    top_p: float = 1.0
    """Sample from the most likely tokens that have this probability together."""
    seed: int = 0
    """The seed of the samples and of --shots."""
    baseline: Path | None = None
    """Another evaluated run, such as the frozen base, whose scores the report shows as well."""
    output: Path | None = None
    """A directory for predictions, report and plots; None means the run's directory."""
    mesh: str | None = None
    """DATAxMODEL, such as 4x2; None means all devices x 1."""
    platform: Literal["cpu", "cuda", "tpu"] | None = None
    """The platform to run on. cpu emulates any mesh."""

    def __post_init__(self) -> None:
        for name in ("eval_file", "data", "baseline", "output"):  # notebooks may pass strings
            if isinstance(value := getattr(self, name), str):
                object.__setattr__(self, name, Path(value))

    def check(self) -> None:
        """InputError, in one line, for invalid settings."""
        for name in ("task", "languages", "split", "shots_language", "shots_split"):
            if not isinstance(value := getattr(self, name), str | None):
                raise InputError(f"{name} is {value!r}; expected a text, such as 'de' or 'de,hi'")
        for name in ("limit", "batch", "max_length"):
            if (value := getattr(self, name)) is not None and (not isinstance(value, int) or value < 1):
                raise InputError(f"--{name.replace('_', '-')} is {value!r}; expected at least 1")
        self.sampling  # noqa: B018 - raises for invalid sampling settings
        if not isinstance(self.shots, int) or self.shots < 0:
            raise InputError(f"--shots is {self.shots!r}; expected 0 or more")
        if not self.shots and (self.shots_language != "source" or self.shots_split):
            raise InputError("--shots-language and --shots-split are about --shots, which is 0; give --shots 4")
        if self.task and self.eval_file:
            raise InputError(f"--task {self.task} and --eval-file {self.eval_file} both name a benchmark; give one")
        if self.output:
            _check_output(self.output)

    @property
    def how(self) -> str:
        """The settings that decide what the model answers, beside its length, as predictions.jsonl has them."""
        parts = [str(self.sampling), f"split {self.split}" if self.split else ""]
        if self.shots:
            split = f", split {self.shots_split}" if self.shots_split else ""
            parts.append(f"{self.shots} shots ({self.shots_language}{split}, seed {self.seed})")
        return ", ".join(filter(None, parts))

    @property
    def sampling(self) -> Sampling:
        """How the tokens of generated answers are sampled."""
        return Sampling(self.temperature, self.top_k, self.top_p, self.seed)


def names(text: str) -> list[str]:
    """ "xquad, xnli," -> the distinct names; InputError if there are none."""
    distinct = list(dict.fromkeys(name for part in text.split(",") if (name := part.strip())))
    if not distinct:
        raise InputError(f"{text!r} names nothing; expected names, comma-separated, such as xquad,xnli or de,hi")
    return distinct


def _check_output(directory: Path) -> None:
    """InputError if the directory is not writable, or has files that are not an evaluation's."""
    check_writable(directory)
    if entries(directory):
        if not (directory / PREDICTIONS).is_file():
            raise InputError(f"--output {directory} holds other files and no {PREDICTIONS}; give a new directory")
