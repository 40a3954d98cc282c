"""MEXA and CKA against their formulas, in naive float64 NumPy, and the properties that they must have."""

import numpy as np
import pytest
from formulas import naive_cka, naive_debiased, naive_mexa

from jaxprefix.evaluation.report.intervals import Estimate
from jaxprefix.probe.alignment import cka, mexa_hits
from jaxprefix.probe.sampled import means

RANDOM = np.random.default_rng(0)
BASE = RANDOM.normal(size=(12, 5))
RELATED = BASE @ RANDOM.normal(size=(5, 7)) + 0.5 * RANDOM.normal(size=(12, 7)) + 3


@pytest.mark.parametrize("noise", [0.0, 0.5, 1.5, 5.0])
def test_mexa_is_that_of_the_paper(noise: float):
    other = BASE + noise * RANDOM.normal(size=BASE.shape)
    assert mexa_hits(BASE, other).mean() == naive_mexa(BASE, other)


def test_mexa_of_copies_is_one_and_of_noise_about_one_in_n():
    assert mexa_hits(BASE, 3 * BASE).all()
    shares = [mexa_hits(*RANDOM.normal(size=(2, 40, 6))).mean() for _ in range(200)]
    assert np.mean(shares) == pytest.approx(1 / (2 * 40 - 1), abs=0.004)  # above 2(n - 1) others that are like it


def test_mexa_of_equal_sentences_is_zero():
    """A tie is no hit: rows of ones are all alike."""
    assert not mexa_hits(np.ones((5, 3)), np.ones((5, 3))).any()


def test_cka_is_that_of_the_formulas():
    """Twelve sentences: with 7 dimensions the plain form, with 20 the unbiased one."""
    assert float(cka(BASE, RELATED).value) == pytest.approx(naive_cka(BASE, RELATED), abs=1e-12)
    wide = RELATED @ RANDOM.normal(size=(7, 20)) + RANDOM.normal(size=(12, 20))
    assert float(cka(BASE, wide).value) == pytest.approx(naive_debiased(BASE, wide), abs=1e-12)


@pytest.mark.parametrize("width", [5, 20])
def test_the_jackknife_leaves_each_sentence_out(width: int):
    """Its replicates are the statistic of the other sentences, by the estimate that the whole has."""
    one, other = RANDOM.normal(size=(2, 12, width))
    naive = naive_cka if width < 12 else naive_debiased
    without = [naive(np.delete(one, i, axis=0), np.delete(other, i, axis=0)) for i in range(12)]
    found = cka(one, other)
    assert found.replicates == pytest.approx(without, abs=1e-12)
    error = np.sqrt(11 / 12 * np.sum((without - np.mean(without)) ** 2))
    value = naive(one, other)
    assert found.estimates() == pytest.approx(
        Estimate(value=value, low=value - 1.959964 * error, high=value + 1.959964 * error), abs=1e-6
    )


@pytest.mark.parametrize("width", [5, 20])
def test_cka_with_itself_is_one_and_knows_no_rotation_and_scale(width: int):
    one, other = RANDOM.normal(size=(2, 12, width))
    assert float(cka(one, one).value) == pytest.approx(1, abs=1e-12)
    turn, _ = np.linalg.qr(RANDOM.normal(size=(width, width)))
    assert float(cka(one, 7 * one @ turn + 2).value) == pytest.approx(1, abs=1e-12)
    assert float(cka(one, 7 * other @ turn + 2).value) == pytest.approx(float(cka(one, other).value), abs=1e-12)


def test_cka_of_noise_is_near_its_expectation():
    """Unbiased: 0. The plain form of n sentences in D dimensions: about D/n for independent normals, D much below n."""
    unbiased = [float(cka(*RANDOM.normal(size=(2, 40, 60))).value) for _ in range(100)]
    assert np.mean(unbiased) == pytest.approx(0, abs=0.01)
    plain = [float(cka(*RANDOM.normal(size=(2, 400, 8))).value) for _ in range(30)]
    assert np.mean(plain) == pytest.approx(8 / 400, rel=0.1)


def test_cka_of_vectors_that_do_not_vary_does_not_exist():
    assert cka(np.ones((12, 3)), BASE).estimates() is None


def test_means_weight_sentences_by_their_counts_and_resample_them_in_all_languages_at_once():
    values, counts = RANDOM.uniform(size=(30, 2, 3)), RANDOM.integers(1, 9, (30, 2)).astype(float)
    found = means(values, counts)
    assert found.value == pytest.approx(values.sum(axis=0) / counts.sum(axis=0)[:, None])
    same = means(np.repeat(values[:, :1], 2, axis=1))
    assert np.array_equal(same.replicates[:, 0], same.replicates[:, 1])
    assert found.minus(found).estimates()[0][0] == Estimate(value=0, low=0, high=0)
