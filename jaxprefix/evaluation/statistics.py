"""Intervals and tests over questions: a cluster bootstrap, permutations of signs, Holm's correction. Pure numpy.

A question that is asked in several languages tends to go right or wrong in all of them. So what is drawn (Efron's
bootstrap over clusters: Davison and Hinkley 1997, section 3.8) or flipped is the question in every language at once.

Letters: Q questions (ids), L languages, M metrics, R resamples, K statistics.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 2000
FLIPS = 10_000  # so that the smallest p, 1e-4, is still below 0.05 when it is corrected for 122 languages
EXACT = 16  # differences: as many have 65,536 patterns of signs, which are all tried
SEED = 0
BLOCK = 2**22  # draws at a time: memory stays at some tens of megabytes


@dataclass(frozen=True)
class Sample:
    """Scores by question and language: what all statistics are made of; questions and languages are sorted."""

    languages: tuple[str, ...]
    sums: np.ndarray  # [Q, L, M]
    counts: np.ndarray  # [Q, L]: rows; 0 where a question was not asked in a language

    @property
    def means(self) -> np.ndarray:
        """[L, M]."""
        return self.sums.sum(axis=0) / self.counts.sum(axis=0)[:, None]


def sample(languages: Sequence[str], questions: Sequence[Hashable], values: np.ndarray) -> Sample:
    """Of rows: the language and the question's id of each, and their values [rows, M]; the rows' order is no matter."""
    values = np.asarray(values, float)
    codes, place = np.unique(np.asarray(languages, object), return_inverse=True)
    numbers = {question: number for number, question in enumerate(sorted(set(questions), key=repr))}
    cell = np.array([numbers[question] for question in questions]) * len(codes) + place
    shape, size = (len(numbers), len(codes)), len(numbers) * len(codes)
    counts = np.bincount(cell, minlength=size).reshape(shape)
    sums = [np.bincount(cell, column, size).reshape(shape) for column in values.T]
    return Sample(tuple(map(str, codes)), np.stack(sums, axis=-1), counts)


def resampled_means(of: Sample, resamples: int = RESAMPLES, seed: int = SEED) -> np.ndarray:
    """[R, L, M]: every language's means in each bootstrap resample of the questions.

    Languages that share questions, directly or through others, draw them together; groups of languages that share
    none draw apart, so each keeps its number of questions. A language that a draw misses keeps its observed mean,
    which only one of a handful of rows can.
    """
    found = np.empty((resamples, *of.sums.shape[1:]))
    for number, members in enumerate(_sharing(of.counts)):
        asked = np.flatnonzero(of.counts[:, members].any(axis=1))
        counts, sums = of.counts[np.ix_(asked, members)].astype(float), of.sums[np.ix_(asked, members)]
        random = np.random.default_rng([seed, number])
        size = max(1, BLOCK // len(asked))
        for start in range(0, resamples, size):
            times = _draws(random, min(size, resamples - start), len(asked))
            rows = (times @ counts)[..., None]
            totals = (times @ sums.reshape(len(asked), -1)).reshape(-1, *sums.shape[1:])
            means = np.where(rows > 0, totals / np.maximum(rows, 1), of.means[members])
            found[start : start + size, members] = means
    return found


def _draws(random: np.random.Generator, resamples: int, count: int) -> np.ndarray:
    """[resamples, count] of float: how often each question is drawn, `count` draws with replacement a resample."""
    drawn = random.integers(0, count, (resamples, count)) + np.arange(resamples)[:, None] * count
    return np.bincount(drawn.ravel(), minlength=resamples * count).reshape(resamples, count).astype(float)


def _sharing(counts: np.ndarray) -> list[np.ndarray]:
    """The languages in groups that share questions: the connected components of "have one in common"."""
    asked = (counts > 0).astype(np.float32)
    joined = asked.T @ asked > 0
    for _ in range(len(joined).bit_length()):  # each pass doubles the length of the chains that are followed
        joined = joined.astype(np.float32) @ joined.astype(np.float32) > 0
    first = joined.argmax(axis=1)
    return [np.flatnonzero(first == place) for place in np.unique(first)]


def interval(draws: np.ndarray, confidence: float = CONFIDENCE) -> np.ndarray:
    """[2, ...]: the percentile interval of statistics [R, ...]."""
    return np.quantile(draws, ((1 - confidence) / 2, (1 + confidence) / 2), axis=0)


def sign_flip(parts: np.ndarray, flips: int = FLIPS, seed: int = SEED) -> np.ndarray:
    """[K]: two-sided p values that sums over questions are 0, the sign of each question's part being chance.

    With differences of 0 and 1 this is McNemar's test. Exact where at most `EXACT` parts are not 0; else of `flips`
    random patterns of signs, the observed one counted among them (Phipson and Smyth, arXiv:1603.05766).

    Args:
        parts: [Q, K], what each question adds to each statistic.
    """
    observed = np.abs(parts.sum(axis=0))
    least = observed - 1e-9 * np.abs(parts).sum(axis=0)  # sums that are equal but for rounding are as extreme
    found = np.empty(parts.shape[1])
    few = np.count_nonzero(parts, axis=0) <= EXACT
    for place in np.flatnonzero(few):
        sums = np.zeros(1)
        for part in parts[parts[:, place] != 0, place]:
            sums = np.concatenate([sums + part, sums - part])
        found[place] = np.mean(np.abs(sums) >= least[place])
    if few.all():
        return found
    many = parts[:, ~few]
    many = many[many.any(axis=1)]
    random, size, extreme = np.random.default_rng(seed), max(1, BLOCK // len(many)), 1
    for start in range(0, flips, size):
        rows = min(size, flips - start)
        bits = np.unpackbits(np.frombuffer(random.bytes(-(-rows * len(many) // 8)), np.uint8), count=rows * len(many))
        sums = (2.0 * bits.reshape(rows, len(many)) - 1) @ many
        extreme = extreme + (np.abs(sums) >= least[~few]).sum(axis=0)
    found[~few] = extreme / (flips + 1)
    return found


def holm(values: np.ndarray) -> np.ndarray:
    """p values corrected for their number: any one below 0.05 by chance in 5% of all families (Holm 1979)."""
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    found = np.empty(len(values))
    found[order] = np.minimum(stepped, 1.0)
    return found
