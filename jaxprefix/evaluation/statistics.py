"""Intervals and tests over questions: a cluster bootstrap, sign-flip tests and Holm's correction, in NumPy.

The scores of one question in several languages are correlated, and so are those of several questions about one passage.
So a question, or a passage with all its questions, is resampled (Efron's bootstrap over clusters: Davison and Hinkley
1997, section 3.8) or has its sign flipped in all its languages at once.

Letters: Q questions (ids) or clusters of them, L languages, M metrics, R resamples, K statistics.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 2000
FLIPS = 10_000  # the smallest p, 1e-4, is below 0.05 after a correction for 122 languages
EXACT = 16  # with at most this many differences, all patterns of signs are tried (65,536)
SEED = 0
BLOCK = 2**22  # samples at a time, for some tens of megabytes of memory


@dataclass(frozen=True)
class Sample:
    """Scores by question and language, both sorted."""

    languages: tuple[str, ...]
    sums: np.ndarray  # [Q, L, M]
    counts: np.ndarray  # [Q, L]: rows; 0 if a language does not have the question

    @property
    def means(self) -> np.ndarray:
        """The means by language, [L, M]."""
        return self.sums.sum(axis=0) / self.counts.sum(axis=0)[:, None]


def clusters(
    languages: Sequence[str], questions: Sequence[Hashable], shared: Sequence[Hashable | None]
) -> list[Hashable]:
    """A label for each row. Rows have the same label if they have the same question, or share a text in a language.

    The languages of a benchmark need not have the same questions about a passage: the questions that two of them have
    in common connect their translations of it.

    Args:
        shared: for each row, what it shares with other rows of its language, such as a passage; None for nothing.
    """
    parents: dict[Hashable, Hashable] = {}

    def root(node: Hashable) -> Hashable:
        while (parent := parents.setdefault(node, node)) != node:
            parents[node] = node = parents[parent]
        return node

    for language, question, text in zip(languages, questions, shared, strict=True):
        own = ("question", question)
        parents[root(own)] = root(own if text is None else ("text", language, text))
    first: dict[Hashable, Hashable] = {}  # the least question of each cluster: the order of rows does not matter
    for question in sorted(set(questions), key=repr):
        first.setdefault(root(("question", question)), question)
    return [first[root(("question", question))] for question in questions]


def sample(languages: Sequence[str], questions: Sequence[Hashable], values: np.ndarray) -> Sample:
    """The Sample of rows, each with a language, a question id and values [rows, M]. Their order does not matter."""
    values = np.asarray(values, float)
    codes, columns = np.unique(np.asarray(languages, object), return_inverse=True)
    indices = {question: index for index, question in enumerate(sorted(set(questions), key=repr))}
    cell = np.array([indices[question] for question in questions]) * len(codes) + columns
    shape, size = (len(indices), len(codes)), len(indices) * len(codes)
    counts = np.bincount(cell, minlength=size).reshape(shape)
    sums = [np.bincount(cell, metric, size).reshape(shape) for metric in values.T]
    return Sample(tuple(map(str, codes)), np.stack(sums, axis=-1), counts)


def resampled_means(scores: Sample, resamples: int = RESAMPLES, seed: int = SEED) -> np.ndarray:
    """The means by language in each bootstrap resample of the questions, [R, L, M].

    Languages that share questions, directly or through other languages, are resampled together. Groups of languages
    that share none are resampled separately, so each keeps its number of questions. If a resample has no question of a
    language, the language keeps its observed mean; this only happens with a handful of rows.
    """
    result = np.empty((resamples, *scores.sums.shape[1:]))
    for number, members in enumerate(_question_groups(scores.counts)):
        questions = np.flatnonzero(scores.counts[:, members].any(axis=1))
        counts = scores.counts[np.ix_(questions, members)].astype(float)
        sums = scores.sums[np.ix_(questions, members)].reshape(len(questions), -1)
        random = np.random.default_rng([seed, number])
        size = max(1, BLOCK // len(questions))
        for start in range(0, resamples, size):
            times = _sample_counts(random, min(size, resamples - start), len(questions))
            rows = (times @ counts)[..., None]
            totals = (times @ sums).reshape(len(times), len(members), -1)
            means = np.where(rows > 0, totals / np.maximum(rows, 1), scores.means[members])
            result[start : start + size, members] = means
    return result


def _sample_counts(random: np.random.Generator, resamples: int, count: int) -> np.ndarray:
    """How often each of `count` questions is in each resample with replacement, [resamples, count] of float."""
    samples = random.integers(0, count, (resamples, count)) + np.arange(resamples)[:, None] * count
    return np.bincount(samples.ravel(), minlength=resamples * count).reshape(resamples, count).astype(float)


def _question_groups(counts: np.ndarray) -> list[np.ndarray]:
    """Groups of languages: the connected components of the relation "have a question in common"."""
    present = (counts > 0).astype(np.float32)
    connected = present.T @ present > 0
    for _ in range(len(connected).bit_length()):  # each pass doubles the length of the chains that are followed
        connected = connected.astype(np.float32) @ connected.astype(np.float32) > 0
    first = connected.argmax(axis=1)
    return [np.flatnonzero(first == language) for language in np.unique(first)]


def interval(resampled: np.ndarray, confidence: float = CONFIDENCE) -> np.ndarray:
    """The percentile interval [2, ...] of resampled statistics [R, ...]."""
    return np.quantile(resampled, ((1 - confidence) / 2, (1 + confidence) / 2), axis=0)


def sign_flip(parts: np.ndarray, flips: int = FLIPS, seed: int = SEED) -> np.ndarray:
    """Two-sided p values [K] of sums over questions, under the hypothesis that the sign of each question is random.

    With differences of 0 and 1 this is McNemar's test. It is exact if at most `EXACT` parts are not 0. Otherwise it
    uses `flips` random patterns of signs and the observed one (Phipson and Smyth, arXiv:1603.05766).

    Args:
        parts: the part of each question in each statistic, [Q, K].
    """
    observed = np.abs(parts.sum(axis=0))
    least = observed - 1e-9 * np.abs(parts).sum(axis=0)  # sums that differ only by rounding are as extreme
    p_values = np.empty(parts.shape[1])
    few = np.count_nonzero(parts, axis=0) <= EXACT
    for statistic in np.flatnonzero(few):
        sums = np.zeros(1)
        for part in parts[parts[:, statistic] != 0, statistic]:
            sums = np.concatenate([sums + part, sums - part])
        p_values[statistic] = np.mean(np.abs(sums) >= least[statistic])
    if few.all():
        return p_values
    many = parts[:, ~few]
    many = many[many.any(axis=1)]
    random, size, extreme = np.random.default_rng(seed), max(1, BLOCK // len(many)), 1
    for start in range(0, flips, size):
        rows = min(size, flips - start)
        bits = np.unpackbits(np.frombuffer(random.bytes(-(-rows * len(many) // 8)), np.uint8), count=rows * len(many))
        sums = (2.0 * bits.reshape(rows, len(many)) - 1) @ many
        extreme = extreme + (np.abs(sums) >= least[~few]).sum(axis=0)
    p_values[~few] = extreme / (flips + 1)
    return p_values


def holm(values: np.ndarray) -> np.ndarray:
    """p values corrected for their number, which controls the family-wise error rate (Holm 1979)."""
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    corrected = np.empty(len(values))
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected
