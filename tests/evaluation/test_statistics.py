"""Intervals and p values: against SciPy, exact enumeration and McNemar's test; together by simulation."""

import itertools
import random

import numpy as np
import pytest
from scipy import stats
from scipy.sparse.csgraph import connected_components

from jaxprefix.evaluation import statistics
from jaxprefix.evaluation.statistics import clusters, holm, interval, resampled_means, sample, sign_flip


def parallel(values, languages=None):
    """A Sample of [questions, languages] scores, where all languages have all questions."""
    values = np.asarray(values, float)
    codes = languages or [f"l{place}" for place in range(values.shape[1])]
    rows = [(code, f"q{q}", [values[q, place]]) for place, code in enumerate(codes) for q in range(len(values))]
    return sample([code for code, _, _ in rows], [question for _, question, _ in rows], [value for _, _, value in rows])


def test_the_interval_of_one_language_is_scipys():
    scores = np.random.default_rng(1).beta(0.4, 0.6, size=300)
    ours = interval(resampled_means(parallel(scores[:, None]), resamples=20_000))[:, 0, 0]
    theirs = stats.bootstrap((scores,), np.mean, n_resamples=20_000, method="percentile", rng=2).confidence_interval
    width = theirs.high - theirs.low
    assert ours == pytest.approx(tuple(theirs), abs=0.03 * width)
    # And of the normal approximation, which is accurate for 300 rows.
    assert width == pytest.approx(2 * 1.96 * scores.std() / np.sqrt(300), rel=0.05)


def test_draws_have_the_distribution_of_all_resamples():
    """Three questions have 27 resamples; two languages share them."""
    scores = np.array([[0.0, 0.5], [0.2, 0.9], [1.0, 0.1]])
    draws = resampled_means(parallel(scores), resamples=30_000)[..., 0]
    exact = np.array([scores[list(picked)].mean(axis=0) for picked in itertools.product(range(3), repeat=3)])
    for pair in np.unique(exact.round(9), axis=0):
        share = np.mean(np.abs(draws - pair).max(axis=1) < 1e-9)
        assert share == pytest.approx(np.mean(np.abs(exact - pair).max(axis=1) < 1e-9), abs=0.01)


def test_shared_questions_are_resampled_together_and_others_apart():
    scores = np.random.default_rng(3).random((50, 1))
    together = resampled_means(parallel(np.hstack([scores, 1 - scores])))[..., 0]
    assert together.sum(axis=1) == pytest.approx(np.ones(len(together)), abs=1e-12)
    apart = sample(["de"] * 50 + ["en"] * 50, [*range(50), *range(100, 150)], np.vstack([scores, 1 - scores]))
    draws = resampled_means(apart)[..., 0]
    assert abs(np.corrcoef(draws.T)[0, 1]) < 0.07  # three standard errors of no correlation
    assert draws.std(axis=0) == pytest.approx(together.std(axis=0), rel=0.1)


def test_languages_that_share_some_questions_are_resampled_with_them():
    """de and en share questions, and so do en and fr: they are resampled together, here by a plain loop; sw shares
    none.
    """
    ids = {"de": range(60), "en": range(30, 90), "fr": range(80, 120), "sw": range(500, 540)}
    chance = np.random.default_rng(4)
    hard = chance.random(600)
    scores = {code: {q: 0.5 * hard[q] + 0.5 * chance.random() for q in own} for code, own in ids.items()}
    rows = [(code, q, [value]) for code, own in scores.items() for q, value in own.items()]
    of = sample(*zip(*rows, strict=True))
    assert [group.tolist() for group in statistics._question_groups(of.counts)] == [[0, 1, 2], [3]]
    draws = resampled_means(of, resamples=4000)[..., 0]
    plain, questions, generator = [], sorted({q for code in ("de", "en", "fr") for q in ids[code]}), random.Random(5)
    for _ in range(4000):
        drawn = generator.choices(questions, k=len(questions))
        parts = [[scores[code][q] for q in drawn if q in scores[code]] for code in ("de", "en", "fr")]
        plain.append([sum(part) / len(part) for part in parts])
    assert np.cov(draws[:, :3].T) == pytest.approx(np.cov(np.array(plain).T), abs=0.12 * np.var(draws[:, 0]))


def test_a_language_of_one_row_among_many_questions_has_its_score_in_every_draw():
    of = sample(["de", *["en"] * 40], [0, *range(40)], np.array([[0.25], *[[q % 2] for q in range(40)]]))
    assert set(resampled_means(of)[:, 0, 0]) == {0.25}


def test_the_order_of_rows_and_the_size_of_blocks_change_nothing(monkeypatch):
    chance = random.Random(6)
    rows = [(code, f"q{q}", [chance.random(), chance.random()]) for code in ("de", "en", "zh") for q in range(40)]
    before = resampled_means(sample(*zip(*rows, strict=True)))
    chance.shuffle(rows)
    assert np.array_equal(before, resampled_means(sample(*zip(*rows, strict=True))))
    monkeypatch.setattr(statistics, "BLOCK", 1000)
    assert before.shape == (statistics.RESAMPLES, 3, 2)
    assert interval(resampled_means(sample(*zip(*rows, strict=True)))) == pytest.approx(interval(before), abs=0.03)


@pytest.mark.parametrize("count", [2, 5, 12])
def test_signs_are_enumerated_as_scipy_does(count):
    differences = np.random.default_rng(count).normal(0.3, 1.0, count)
    ours = sign_flip(np.concatenate([differences, np.zeros(200)])[:, None])[0]
    theirs = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert ours == pytest.approx(theirs.pvalue, abs=1e-12)
    patterns = np.array(list(itertools.product((-1, 1), repeat=count))) @ differences
    assert ours == pytest.approx(np.mean(np.abs(patterns) >= abs(differences.sum()) - 1e-12), abs=1e-12)


@pytest.mark.parametrize(("better", "worse"), [(0, 0), (1, 0), (3, 3), (9, 2), (1, 15), (16, 0)])
def test_few_discordant_answers_equal_mcnemars_exact_test(better, worse):
    parts = np.repeat([1.0, -1.0, 0.0], [better, worse, 500]) / 900  # divided by the number of rows, so rounded
    exact = stats.binomtest(better, better + worse).pvalue if better + worse else 1.0
    assert sign_flip(parts[:, None])[0] == pytest.approx(exact, abs=1e-12)


def test_many_discordant_answers_come_near_it():
    cases = [(40, 30), (60, 40), (110, 90), (30, 10), (200, 100)]
    parts = np.zeros((300, len(cases)))
    for place, (better, worse) in enumerate(cases):
        parts[:, place][: better + worse] = np.repeat([1.0, -1.0], [better, worse]) / 1190
    found = sign_flip(parts)
    for p, (better, worse) in zip(found, cases, strict=True):
        exact = stats.binomtest(better, better + worse).pvalue
        assert p == pytest.approx(exact, abs=4 * np.sqrt(exact / statistics.FLIPS) + 2e-4)
    assert found.min() == 1 / (statistics.FLIPS + 1)  # never 0


def test_statistics_of_one_call_are_those_of_many():
    """Exact and random tests side by side, in blocks."""
    chance = np.random.default_rng(8)
    parts = chance.normal(0.1, 1.0, (400, 4)) * (np.arange(400)[:, None] < [10, 400, 14, 400])
    found = sign_flip(parts)
    for place in (0, 2):
        assert found[place] == sign_flip(parts[:, place : place + 1])[0]
    assert found[1] == pytest.approx(sign_flip(parts[:, 1:2], seed=9)[0], abs=0.02)
    assert np.array_equal(found, sign_flip(parts))


def test_holm_is_bonferroni_over_every_set_of_hypotheses():
    """The closed test: a hypothesis is rejected if Bonferroni rejects every set that contains it."""
    for number in range(20):
        values = np.random.default_rng(number).random(6) ** 3
        closed = [
            max(
                min(1.0, len(chosen) * min(values[list(chosen)]))
                for size in range(1, 7)
                for chosen in itertools.combinations(range(6), size)
                if place in chosen
            )
            for place in range(6)
        ]
        assert holm(values) == pytest.approx(closed)
    assert holm(np.array([0.01, 0.04, 0.03])).tolist() == pytest.approx([0.03, 0.06, 0.06])


def test_clusters_are_connected_components():
    """Questions that share a text in a language, directly or through a language that has other questions about it."""
    languages = ["de", "de", "de", "en", "en", "en", "en", "zh"]
    questions = ["1", "2", "3", "2", "4", "5", "6", "6"]
    texts = ["A", "A", "B", "a", "a", "b", None, "A"]  # zh's text "A" is not the German one
    assert clusters(languages, questions, texts) == ["1", "1", "3", "1", "1", "5", "6", "6"]
    assert clusters(languages, questions, [None] * 8) == questions
    chance = random.Random(12)
    for _ in range(30):
        rows = [(chance.choice("ab"), chance.randrange(30), chance.choice([None, *range(12)])) for _ in range(40)]
        labels = clusters(*zip(*rows, strict=True))
        near = np.array(
            [[a[1] == b[1] or (a[2] is not None and (a[0], a[2]) == (b[0], b[2])) for a in rows] for b in rows]
        )
        count, expected = connected_components(near)
        assert len(set(labels)) == len(set(zip(labels, expected, strict=True))) == count
        shuffled = chance.sample(range(40), 40)
        again = clusters(*zip(*(rows[index] for index in shuffled), strict=True))
        assert again == [labels[index] for index in shuffled]


def test_intervals_over_passages_hold_the_truth_and_those_over_questions_do_not():
    """400 simulated evaluations of 60 passages with 1 to 9 questions, which are hard together."""
    chance, inside, widths = np.random.default_rng(13), np.zeros(2), np.zeros(2)
    for number in range(400):
        sizes = chance.integers(1, 10, 60)
        passages = np.repeat(np.arange(60), sizes)
        right = chance.random(len(passages)) < 1 / (1 + np.exp(-1.5 * chance.normal(size=60)))[passages]  # mean 0.5
        labels = clusters(["de"] * len(passages), range(len(passages)), passages.tolist())
        for column, questions in enumerate((labels, range(len(passages)))):
            draws = resampled_means(sample(["de"] * len(passages), questions, right[:, None]), 500, number)
            low, high = interval(draws)[:, 0, 0]
            inside[column] += low <= 0.5 <= high
            widths[column] += high - low
    inside, widths = inside / 400, widths / 400
    print("coverage by passage and by question", inside, "width", widths.round(3))
    assert 0.915 <= inside[0] <= 0.98  # 0.95, with a standard error of 0.011
    assert inside[1] < 0.85 and widths[1] < 0.8 * widths[0]


def asked(chance, questions, levels):
    """[questions, languages] of 0 and 1; a hard question is hard in every language."""
    hard = chance.normal(0.0, 1.5, (questions, 1))
    return (chance.random((questions, len(levels))) < 1 / (1 + np.exp(hard - levels))).astype(float)


@pytest.mark.slow
def test_intervals_hold_the_truth_as_often_as_they_say():
    """600 simulated evaluations of 200 questions in 8 languages. Resampling each language by itself would fail."""
    chance, levels = np.random.default_rng(10), np.array([1.5, 1.0, 0.5, 0.2, 0.0, -0.3, -0.8, -1.5])
    truth = asked(chance, 400_000, levels).mean(axis=0)
    figures = np.array([*np.eye(8), [0, *[1 / 7] * 7], [1, *[-1 / 7] * 7]])  # languages, mean of others, gap
    inside, alone = np.zeros(10), np.zeros(10)
    for number in range(600):
        values = asked(chance, 200, levels)
        draws = resampled_means(parallel(values), resamples=1000, seed=number)[..., 0]
        apart = np.stack([resampled_means(parallel(values[:, [k]]), 1000, [number, k])[:, 0, 0] for k in range(8)], -1)
        for count, drawn in ((inside, draws), (alone, apart)):
            low, high = interval(drawn @ figures.T)
            count += (low <= figures @ truth) & (figures @ truth <= high)
    inside, alone = inside / 600, alone / 600
    print("coverage", inside.round(3), "drawn alone", alone.round(3))
    assert np.all((0.92 <= inside) & (inside <= 0.975))  # 0.95, with a standard error of 0.009
    assert alone[8] < 0.8  # too narrow


@pytest.mark.slow
def test_p_values_of_equal_runs_are_uniform():
    """The p values of the mean over languages with correlated questions and few ties."""
    chance, found = np.random.default_rng(11), []
    for number in range(1000):
        shared = chance.normal(0.0, 1.5, (100, 1)) - np.array([1.0, 0.0, -1.0])
        one, other = (
            1 / (1 + np.exp(shared + chance.normal(size=(100, 1)) + chance.normal(size=(100, 3)))) for _ in range(2)
        )
        found.append(sign_flip((one - other).mean(axis=1, keepdims=True), flips=1000, seed=number)[0])
    shares = [np.mean(np.array(found) <= level) for level in (0.01, 0.05, 0.2, 0.5)]
    print("shares", shares)
    assert shares == pytest.approx([0.01, 0.05, 0.2, 0.5], abs=0.04)
    assert 0.03 < shares[1] < 0.07
