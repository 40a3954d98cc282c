"""Neurons that are specific to a language, against a naive computation from the paper's definition."""

import numpy as np
from formulas import naive_lape

from jaxprefix.probe.neurons import specific_neurons

RANDOM = np.random.default_rng(4)
LAYERS, LANGUAGES, NEURONS = 2, 3, 40
TOKENS = np.array([500, 300, 400])


def test_lape_is_that_of_the_definition():
    rates = RANDOM.beta(0.4, 1.5, (LAYERS, LANGUAGES, NEURONS))
    active = np.round(rates * TOKENS[:, None]).astype(int)
    active[0, :, 0] = 0  # never active: no share, and no neuron of any language
    found = specific_neurons(active, TOKENS)
    assert {tuple(index) for index in np.argwhere(found).tolist()} == naive_lape(active, TOKENS)
    assert 0 < found.sum() and not found[:, 0, 0].any()


def test_a_neuron_that_only_one_language_uses_is_its_own():
    active = np.full((LAYERS, LANGUAGES, NEURONS), 30)
    active[1, 2, 7] = 390
    active[1, :2, 7] = 0
    found = specific_neurons(active, TOKENS)
    assert found[2, 1, 7] and not found[:2, 1, 7].any()
