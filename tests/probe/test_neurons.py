"""Neurons that are specific to a language, against a naive computation from the paper's definition."""

import math

import numpy as np

from jaxprefix.probe.neurons import specific_neurons

RANDOM = np.random.default_rng(4)
LAYERS, LANGUAGES, NEURONS = 2, 3, 40
TOKENS = np.array([500, 300, 400])


def naive(active: np.ndarray) -> set[tuple[int, int, int]]:
    """(language, layer, neuron), with loops."""
    keys = [(layer, neuron) for layer in range(LAYERS) for neuron in range(NEURONS)]
    rates = {key: [active[key[0], j, key[1]] / TOKENS[j] for j in range(LANGUAGES)] for key in keys}
    ranked = sorted(rate for each in rates.values() for rate in each)
    bar = ranked[round(0.95 * len(ranked)) - 1]
    entropies = {}
    for key, each in rates.items():
        shares = [rate / sum(each) for rate in each] if sum(each) else [0.0] * LANGUAGES
        if max(each) > bar:
            entropies[key] = -sum(share * math.log(share) for share in shares if share)
    lowest = sorted(entropies, key=lambda key: entropies[key])[: round(0.05 * len(keys))]
    return {(j, *key) for key in lowest for j in range(LANGUAGES) if rates[key][j] > bar}


def test_lape_is_that_of_the_definition():
    rates = RANDOM.beta(0.4, 1.5, (LAYERS, LANGUAGES, NEURONS))
    active = np.round(rates * TOKENS[:, None]).astype(int)
    active[0, :, 0] = 0  # never active: no share, and no neuron of any language
    found = specific_neurons(active, TOKENS)
    assert {tuple(index) for index in np.argwhere(found).tolist()} == naive(active)
    assert 0 < found.sum() and not found[:, 0, 0].any()


def test_a_neuron_that_only_one_language_uses_is_its_own():
    active = np.full((LAYERS, LANGUAGES, NEURONS), 30)
    active[1, 2, 7] = 390
    active[1, :2, 7] = 0
    found = specific_neurons(active, TOKENS)
    assert found[2, 1, 7] and not found[:2, 1, 7].any()
