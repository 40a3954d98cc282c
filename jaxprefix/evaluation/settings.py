"""What an evaluation is asked to do, as its flags say it."""

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
    """Comma-separated, such as xquad,xnli; left out, what measures the trained task."""
    languages: str | None = None
    """Comma-separated codes, such as de,hi,sw; left out, all that the task has."""
    split: str | None = None
    """The split that is asked, such as validation; left out, the one that each task's scores are published on."""
    eval_file: Path | None = None
    """Your own rows {"prompt", "response"[, "language"][, "choices"]} in the place of a task."""
    data: Path | None = None
    """A local mirror of the hub; left out, the one that the run was trained with."""
    limit: int | None = None
    """Rows a language."""
    batch: int = 32
    """Rows at a time."""
    max_length: int | None = None
    """Tokens a row, prompt and answer; longer contexts are cut. Left out, what the run was trained with."""
    temperature: float = 0.0
    """Generated answers are drawn at it; 0 takes the likeliest token."""
    top_k: int = 0
    """Draw among so many of the likeliest tokens; 0 is all."""
    top_p: float = 1.0
    """Draw among the likeliest tokens that hold this share together."""
    seed: int = 0
    """Of the draws."""
    baseline: Path | None = None
    """Another evaluated run, such as the frozen base's, to show beside this one."""
    output: Path | None = None
    """A directory for predictions, report and pictures; left out, the run's own."""
    mesh: str | None = None
    """DATAxMODEL, such as 4x2; left out, all devices x 1."""
    platform: Literal["cpu", "cuda", "tpu"] | None = None
    """Where to run; cpu emulates any mesh."""

    def __post_init__(self) -> None:
        for name in ("eval_file", "data", "baseline", "output"):  # texts in notebooks
            if isinstance(value := getattr(self, name), str):
                object.__setattr__(self, name, Path(value))

    def check(self) -> None:
        """InputError, in one line, for settings that cannot be."""
        for name in ("task", "languages", "split"):
            if not isinstance(value := getattr(self, name), str | None):
                raise InputError(f"{name} is {value!r}; expected a text, of several comma-separated such as 'de,hi'")
        for name in ("limit", "batch", "max_length"):
            if (value := getattr(self, name)) is not None and (not isinstance(value, int) or value < 1):
                raise InputError(f"--{name.replace('_', '-')} is {value!r}; expected at least 1")
        self.sampling  # noqa: B018 - refuses draws that cannot be
        if self.task and self.eval_file:
            raise InputError(f"--task {self.task} and --eval-file {self.eval_file} both say what to ask; give one")
        if self.output:
            _check_output(self.output)

    @property
    def sampling(self) -> Sampling:
        """How the tokens of generated answers are chosen."""
        return Sampling(self.temperature, self.top_k, self.top_p, self.seed)


def names(text: str) -> list[str]:
    """ "xquad, xnli," -> the names, each once; InputError where there is none."""
    found = list(dict.fromkeys(name for part in text.split(",") if (name := part.strip())))
    if not found:
        raise InputError(f"{text!r} names nothing; expected names, comma-separated, such as xquad,xnli or de,hi")
    return found


def _check_output(directory: Path) -> None:
    """Refuses a place where something of the user's would be written over, or where nothing can be."""
    check_writable(directory)
    if entries(directory):
        if not (directory / PREDICTIONS).is_file():
            raise InputError(f"--output {directory} holds other files and no {PREDICTIONS}; give a new directory")
