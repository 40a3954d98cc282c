"""The probe of the language: equal to scikit-learn's logistic regression, and at chance with shuffled labels."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from jaxprefix.probe.language_identity import fit, held_out

RANDOM = np.random.default_rng(1)
LANGUAGES, SENTENCES, WIDTH = 4, 60, 9
# A language is a direction; a sentence has the same content in all of them.
VECTORS = (
    0.6 * RANDOM.normal(size=(LANGUAGES, 1, WIDTH))
    + RANDOM.normal(size=(1, SENTENCES, WIDTH))
    + 0.7 * RANDOM.normal(size=(LANGUAGES, SENTENCES, WIDTH))
)


def test_the_fit_is_that_of_scikit_learn(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("jaxprefix.probe.language_identity.TOLERANCE", 1e-9)
    columns, labels = VECTORS.reshape(-1, WIDTH), np.repeat(np.arange(LANGUAGES), SENTENCES)
    theirs = LogisticRegression(tol=1e-9, max_iter=1000).fit(columns, labels)
    weights, bias = fit(columns, labels, LANGUAGES)
    assert weights == pytest.approx(theirs.coef_, abs=1e-5)
    assert bias - bias.mean() == pytest.approx(theirs.intercept_ - theirs.intercept_.mean(), abs=1e-5)


def test_the_accuracy_is_that_of_scikit_learn_on_held_out_sentences():
    """The split is by sentence: no translation of a held-out sentence is learnt."""
    right, _ = held_out(VECTORS)
    order = np.random.default_rng(0).permutation(SENTENCES)
    learn, test = VECTORS[:, order[:42]], VECTORS[:, order[42:]]
    columns = learn.reshape(-1, WIDTH)
    scale = columns.mean(axis=0), columns.std(axis=0)
    model = LogisticRegression(max_iter=1000).fit((columns - scale[0]) / scale[1], np.repeat(np.arange(LANGUAGES), 42))
    theirs = [model.predict((vectors - scale[0]) / scale[1]) == label for label, vectors in enumerate(test)]
    assert right.shape == (18, LANGUAGES)
    assert 0.4 < right.mean() < 0.95  # neither trivial nor hopeless
    assert np.mean(right.T == np.array(theirs)) > 0.98


def test_shuffled_labels_are_at_chance():
    found = [held_out(RANDOM.normal(size=VECTORS.shape) + 4 * np.eye(LANGUAGES, WIDTH)[:, None]) for _ in range(8)]
    assert np.mean([right for right, _ in found]) > 0.95
    assert np.mean([control for _, control in found]) == pytest.approx(1 / LANGUAGES, abs=0.05)


def test_vectors_that_do_not_vary_are_at_chance():
    right, _ = held_out(np.ones((3, 10, 4), np.float32))
    assert right.mean() == pytest.approx(1 / 3)
