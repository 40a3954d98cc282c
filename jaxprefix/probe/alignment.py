"""How similar a sentence and its translation are: MEXA (arXiv:2410.05873) and linear CKA (arXiv:1905.00414)."""

import numpy as np
from jaxtyping import Bool, Float

from jaxprefix.probe.sampled import Sampled


def mexa_hits(pivot: Float[np.ndarray, "n D"], other: Float[np.ndarray, "n D"]) -> Bool[np.ndarray, " n"]:
    """Whether the cosine of sentence i and its translation is above all others in its row and column.

    MEXA's score is the mean.
    """
    cosines = _unit(pivot) @ _unit(other).T
    own = np.diag(cosines).copy()
    np.fill_diagonal(cosines, -np.inf)
    return (own > cosines.max(axis=0)) & (own > cosines.max(axis=1))


def _unit(vectors: Float[np.ndarray, "n D"]) -> Float[np.ndarray, "n D"]:
    vectors = vectors.astype(np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-300)


def cka(one: Float[np.ndarray, "n D"], other: Float[np.ndarray, "n E"]) -> Sampled:
    """Linear CKA of two representations of n sentences, with a jackknife over sentences.

    With fewer sentences than dimensions the HSIC estimates are unbiased ones (arXiv:2010.15327), whose CKA may be below
    0. The bootstrap is no alternative: a sentence that is sampled twice is similar to itself. NaN if a representation
    does not vary.
    """
    debiased = len(one) < max(one.shape[1], other.shape[1])
    first, second = _gram(one, debiased), _gram(other, debiased)
    product = _hsic(first, first, debiased) * _hsic(second, second, debiased)
    cross = _hsic(first, second, debiased)
    value, *without = np.where(product > 0, cross / np.sqrt(np.where(product > 0, product, 1)), np.nan)
    return Sampled(np.array(value), np.array(without), is_jackknife=True)


def _gram(vectors: Float[np.ndarray, "n D"], debiased: bool) -> Float[np.ndarray, "n n"]:
    """The Gram matrix of the centred columns, scaled to about 1; the unbiased estimate leaves the diagonal out."""
    centred = vectors - vectors.astype(np.float64).mean(axis=0)
    size = np.abs(centred).max()
    gram = (centred / (size or 1)) @ (centred / (size or 1)).T
    if debiased:
        np.fill_diagonal(gram, 0)
    return gram


def _hsic(one: np.ndarray, other: np.ndarray, debiased: bool) -> Float[np.ndarray, " n+1"]:
    """HSIC up to a constant, of all sentences and then without sentence 0, 1, ..., from sums over the matrices."""
    products = one * other
    rows, (one_sums, other_sums) = products.sum(axis=1), (matrix.sum(axis=1) for matrix in (one, other))
    one_self, other_self = np.diag(one), np.diag(other)
    trace, dot, total = rows.sum(), one_sums @ other_sums, one_sums.sum() * other_sums.sum()
    traces = trace - 2 * rows + one_self * other_self
    dots = dot - one @ other_sums - other @ one_sums + rows - (one_sums - one_self) * (other_sums - other_self)
    totals = (one_sums.sum() - 2 * one_sums + one_self) * (other_sums.sum() - 2 * other_sums + other_self)
    whole = _estimate(len(one), trace, dot, total, debiased)
    return np.concatenate([[whole], _estimate(len(one) - 1, traces, dots, totals, debiased)])


def _estimate(n: int, trace: np.ndarray, dot: np.ndarray, total: np.ndarray, debiased: bool) -> np.ndarray:
    """tr(KHLH)/(n-1)², or Song et al.'s unbiased estimate for matrices with zero diagonals.

    Args:
        trace: tr(KL).
        dot: 1ᵀKL1.
        total: 1ᵀK1 · 1ᵀL1.
    """
    if not debiased:
        return (trace - 2 * dot / n + total / n**2) / (n - 1) ** 2
    return (trace + total / ((n - 1) * (n - 2)) - 2 * dot / (n - 2)) / (n * (n - 3))
