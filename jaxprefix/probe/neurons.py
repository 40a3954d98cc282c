"""LAPE: feed-forward neurons that are specific to languages, by the entropy of how often they are active in each.

Tang et al., arXiv:2402.16438. A neuron is active at a token if its activation is above 0.
"""

import numpy as np
from jaxtyping import Bool, Int

HIGH = 0.95  # a neuron is of a language if it is active there more often than this share of all (neuron, language)
SPECIFIC = 0.05  # the share of neurons with the lowest entropy


def specific_neurons(active: Int[np.ndarray, "L J F"], tokens: Int[np.ndarray, " J"]) -> Bool[np.ndarray, "J L F"]:
    """Which neurons are specific to each of J languages, from the numbers of tokens at which they are active.

    A neuron that is above the bar in no language is specific to none, however low its entropy is.
    """
    rates = np.moveaxis(active / tokens[:, None], 1, 0)  # [J, L, F]
    total = rates.sum(axis=0)
    shares = rates / np.where(total > 0, total, 1)
    entropy = -np.sum(shares * np.log(np.where(shares > 0, shares, 1)), axis=0)
    bar = np.sort(rates, axis=None)[round(HIGH * rates.size) - 1]
    entropy = np.where((rates > bar).any(axis=0), entropy, np.inf)
    lowest = np.argsort(entropy, axis=None, kind="stable")[: round(SPECIFIC * entropy.size)]
    selected = np.zeros(entropy.size, bool)
    selected[lowest] = np.isfinite(entropy.ravel()[lowest])
    return (rates > bar) & selected.reshape(entropy.shape)
