"""The settings of a probe, which are its command-line flags."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jaxprefix.errors import InputError
from jaxprefix.evaluation.settings import names
from jaxprefix.io.atomic import check_writable

OF_VECTORS = ("mexa", "cka", "language-id")  # computed from one vector per sentence and layer
PROBES = (*OF_VECTORS, "attention", "lens", "forgetting", "neurons")


@dataclass(frozen=True)
class Probe:
    """Measures what adaptation does to the representations of many languages, beside the frozen base.

    mexa and cka: how similar a sentence and its translation are. language-id: how well the language can be read from a
    layer. attention: the share of virtual tokens. lens: in which language a layer would answer. forgetting: the loss on
    plain text that the adapter adds. neurons: those that are specific to a language.
    """

    probes: str = "mexa,cka,language-id"
    """Comma-separated: mexa, cka, language-id, attention, lens, forgetting, neurons."""
    languages: str | None = None
    """Comma-separated codes, such as en,de,sw; None means all languages of the texts."""
    pivot: str = "en"
    """The language that the others are compared with. It need not be among --languages."""
    texts: str | None = None
    """Parallel texts: flores, belebele, xnli, xquad, or of the embedded world babel-qa and babel-nli.
    None means flores, and babel-qa for the embedded model."""
    split: str | None = None
    """The split of the texts; None means the one that evaluation uses."""
    text_file: Path | None = None
    """Your own rows {"text", "language"[, "id"]}, instead. Texts with one id, or else the n-th of each language, are
    translations of each other."""
    data: Path | None = None
    """A local mirror of the Hub; None means the mirror that the run was trained with."""
    limit: int = 100
    """Sentences per language, spread over the file: the same sentences in every language."""
    pooling: Literal["weighted", "last"] = "weighted"
    """A sentence's vector: the mean of its tokens weighted by their position, or the last token."""
    lens_task: str | None = None
    """The task whose answers the lens reads: xquad or babel-qa. None means babel-qa for the embedded model."""
    forgetting_task: str | None = None
    """With forgetting, also the scores that the adapter loses on these tasks, which it was not trained on."""
    max_length: int = 512
    """Tokens per text. Longer texts are cut."""
    batch: int = 32
    """Rows per batch."""
    output: Path | None = None
    """A directory for probes.json and the plots of all runs together; None means the directory of each run."""
    mesh: str | None = None
    """DATAxMODEL, such as 4x2; None means all devices x 1."""
    platform: Literal["cpu", "cuda", "tpu"] | None = None
    """The platform to run on. cpu emulates any mesh."""

    @property
    def chosen(self) -> list[str]:
        """The names of the probes. InputError for an unknown one."""
        chosen = names(self.probes)
        if unknown := [name for name in chosen if name not in PROBES]:
            raise InputError(f"--probes {unknown[0]!r} is unknown; expected {', '.join(PROBES)}")
        return chosen

    def check(self) -> None:
        """InputError, in one line, for invalid settings."""
        self.chosen  # noqa: B018 - raises for an unknown probe
        for name in ("limit", "batch", "max_length"):
            if (value := getattr(self, name)) < 1:
                raise InputError(f"--{name.replace('_', '-')} is {value}; expected at least 1")
        if self.text_file and (self.texts or self.split):
            other = f"--texts {self.texts}" if self.texts else f"--split {self.split}"
            raise InputError(f"--text-file {self.text_file} and {other} both name the texts; give one")
        for flag, value, probe in (
            ("lens-task", self.lens_task, "lens"),
            ("forgetting-task", self.forgetting_task, "forgetting"),
        ):
            if value and probe not in self.chosen:
                raise InputError(f"--{flag} {value} is for the probe {probe}; add it to --probes, or drop the flag")
        if self.output:
            check_writable(self.output)
