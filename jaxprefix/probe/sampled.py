"""Statistics of sentences with their replicates, from which the intervals of figures and of their means follow."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxprefix.evaluation import statistics
from jaxprefix.evaluation.report.intervals import Estimate

NORMAL = 1.959963984540054  # the 97.5% quantile of the standard normal


@dataclass(frozen=True)
class Sampled:
    """A statistic of any shape. The replicates have one more dimension, in front.

    They are bootstrap resamples of the sentences or, for a jackknife, the statistic without each sentence.
    """

    value: np.ndarray
    replicates: np.ndarray
    is_jackknife: bool = False

    def map(self, function: Callable[[np.ndarray], np.ndarray]) -> "Sampled":
        """A function of the statistic, such as the mean of its last dimension."""
        return Sampled(function(self.value), function(self.replicates), self.is_jackknife)

    def __getitem__(self, index: int) -> "Sampled":
        return Sampled(self.value[index], self.replicates[:, index], self.is_jackknife)

    def minus(self, other: "Sampled") -> "Sampled":
        """The difference to another statistic of the same sentences."""
        return Sampled(self.value - other.value, self.replicates - other.replicates, self.is_jackknife)

    def estimates(self) -> Any:
        """The Estimate, or nested lists of them. None for a statistic that does not exist, which is NaN here."""
        if self.is_jackknife:
            count = len(self.replicates)
            spread = np.sum((self.replicates - self.replicates.mean(axis=0)) ** 2, axis=0)
            error = NORMAL * np.sqrt((count - 1) / count * spread)
            low, high = self.value - error, self.value + error
        else:
            low, high = statistics.interval(self.replicates)
        return _nested(np.stack([self.value, low, high], axis=-1))


def _nested(figures: np.ndarray) -> Any:
    if figures.ndim > 1:
        return [_nested(part) for part in figures]
    value, low, high = map(float, figures)
    return None if np.isnan(value) else Estimate(value=value, low=low, high=high)


def means(values: Float[np.ndarray, "n J *K"], counts: Float[np.ndarray, "n J"] | None = None) -> Sampled:
    """The means over n sentences in J languages, [J, ...]: Σ values / Σ counts, or plain means.

    A resample takes a sentence in all its languages at once. A language without counts has NaN.
    """
    rows, languages = values.shape[:2]
    counts = np.ones((rows, languages)) if counts is None else counts
    flat = values.reshape(rows, languages, -1).astype(np.float64)
    sample = statistics.Sample(tuple(map(str, range(languages))), flat, counts)
    shape = values.shape[1:]
    with np.errstate(invalid="ignore"):
        return Sampled(sample.means.reshape(shape), statistics.resampled_means(sample).reshape(-1, *shape))
