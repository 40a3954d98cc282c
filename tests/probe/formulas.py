"""MEXA, CKA and LAPE in naive float64 NumPy, written from their formulas."""

import math

import numpy as np


def naive_mexa(one: np.ndarray, other: np.ndarray) -> float:
    """As in the paper's code: strictly above every other entry of its row and its column."""
    n = len(one)
    cosines = [[a @ b / np.sqrt(a @ a) / np.sqrt(b @ b) for b in other] for a in one]
    count = 0
    for i in range(n):
        rivals = [cosines[i][k] for k in range(n) if k != i] + [cosines[k][i] for k in range(n) if k != i]
        count += all(cosines[i][i] > rival for rival in rivals)
    return count / n


def naive_cka(one: np.ndarray, other: np.ndarray) -> float:
    """‖YᵀX‖²_F / (‖XᵀX‖_F ‖YᵀY‖_F) with centred columns."""
    x, y = one - one.mean(axis=0), other - other.mean(axis=0)
    return np.linalg.norm(y.T @ x) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))


def naive_debiased(one: np.ndarray, other: np.ndarray) -> float:
    """CKA with HSIC₁ of Song et al., term by term over i ≠ j."""

    def hsic(a: np.ndarray, b: np.ndarray) -> float:
        n, k, m = len(a), a @ a.T, b @ b.T
        pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
        trace = sum(k[i, j] * m[j, i] for i, j in pairs)
        sums = sum(k[p] for p in pairs) * sum(m[p] for p in pairs)
        chain = sum(k[i, q] * m[q, j] for i, q in pairs for j in range(n) if j != q)
        return (trace + sums / ((n - 1) * (n - 2)) - 2 * chain / (n - 2)) / (n * (n - 3))

    return hsic(one, other) / np.sqrt(hsic(one, one) * hsic(other, other))


def naive_lape(active: np.ndarray, tokens: np.ndarray) -> set[tuple[int, int, int]]:
    """(language, layer, neuron) of the specific neurons, with loops; `active` is [layers, languages, neurons]."""
    layers, languages, neurons = active.shape
    keys = [(layer, neuron) for layer in range(layers) for neuron in range(neurons)]
    rates = {key: [active[key[0], j, key[1]] / tokens[j] for j in range(languages)] for key in keys}
    ranked = sorted(rate for each in rates.values() for rate in each)
    bar = ranked[round(0.95 * len(ranked)) - 1]
    entropies = {}
    for key, each in rates.items():
        shares = [rate / sum(each) for rate in each] if sum(each) else [0.0] * languages
        if max(each) > bar:
            entropies[key] = -sum(share * math.log(share) for share in shares if share)
    lowest = sorted(entropies, key=lambda key: entropies[key])[: round(0.05 * len(keys))]
    return {(j, *key) for key in lowest for j in range(languages) if rates[key][j] > bar}
