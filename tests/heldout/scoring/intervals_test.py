"""Intervals against published values, closed forms, and their exact coverage by plain enumeration of all outcomes."""

import itertools

import numpy as np
import pytest
from scipy import optimize, stats

from heldout.scoring import intervals
from zoo import errors

RATES = (0.0, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99, 1.0)


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [
        # Newcombe (1998), table II, method 10.
        ((56, 70, 48, 80), 0.0524, 0.3339),
        ((9, 10, 3, 10), 0.1705, 0.8090),
        ((6, 7, 2, 7), 0.0582, 0.8062),
        ((5, 56, 0, 29), -0.0381, 0.1926),
        ((0, 10, 0, 20), -0.1611, 0.2775),
        ((0, 10, 0, 10), -0.2775, 0.2775),
        ((10, 10, 0, 20), 0.6791, 1.0000),
        ((10, 10, 0, 10), 0.6075, 1.0000),
    ],
)
def test_newcombe_is_as_published(counts, low, high):
    found = intervals.difference(*counts, method="newcombe")
    assert (round(float(found.low), 4), round(float(found.high), 4)) == (low, high)


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    # The same table, method 6.
    [((56, 70, 48, 80), 0.0528, 0.3382), ((9, 10, 3, 10), 0.1700, 0.8406), ((10, 10, 0, 10), 0.6636, 1.0000)],
)
def test_miettinen_and_nurminen_is_as_published(counts, low, high):
    found = intervals.difference(*counts, method="miettinen_nurminen")
    assert (round(float(found.low), 4), round(float(found.high), 4)) == (low, high)


def test_agresti_and_caffo_by_hand():
    found = intervals.difference(8, 8, 2, 6, method="agresti_caffo")
    half = stats.norm.ppf(0.975) * np.sqrt(0.9 * 0.1 / 10 + 0.375 * 0.625 / 8)
    assert found.low == pytest.approx(0.9 - 0.375 - half)
    assert found.high == pytest.approx(0.9 - 0.375 + half)
    assert intervals.difference(3, 3, 0, 3, method="agresti_caffo").high == 1


def test_one_rate_against_the_equations_that_define_it():
    z = stats.norm.ppf(0.95)
    for k, n in ((0, 3), (1, 3), (7, 20), (20, 20)):
        wilson = intervals.proportion(k, n, level=0.9, method="wilson")
        for end, edge in ((wilson.low, 0), (wilson.high, 1)):
            assert end == edge or abs(k / n - end) == pytest.approx(z * np.sqrt(end * (1 - end) / n))
        jeffreys = intervals.proportion(k, n, level=0.9, method="jeffreys")
        assert jeffreys.low == pytest.approx(stats.beta.ppf(0.05, k + 0.5, n - k + 0.5) if k else 0)
        assert jeffreys.high == pytest.approx(stats.beta.ppf(0.95, k + 0.5, n - k + 0.5) if k < n else 1)


def test_the_score_test_of_the_ends_is_just_not_rejected():
    k1, n1, k0, n0 = (np.array(x, float) for x in ([3, 5, 40, 70], [5, 5, 70, 70], [0, 1, 12, 3], [4, 6, 30, 30]))
    found = intervals.difference(k1, n1, k0, n0, level=0.9, method="miettinen_nurminen")
    for end in (found.low, found.high):
        inner = end < 1
        z = (k1 / n1 - k0 / n0 - end) / np.sqrt(intervals.score_variance(k1, n1, k0, n0, end))
        np.testing.assert_allclose(np.abs(z[inner]), stats.norm.ppf(0.95), rtol=1e-6)


@pytest.mark.parametrize("delta", [-0.7, -0.2, 0.0, 0.1, 0.6])
@pytest.mark.parametrize("counts", [(3, 7, 1, 5), (7, 7, 0, 3), (0, 4, 4, 4), (30, 70, 29, 30), (5, 5, 5, 5)])
def test_restricted_rates_have_the_largest_likelihood(counts, delta):
    k1, n1, k0, n0 = (float(count) for count in counts)

    def loss(p0):
        return -stats.binom.logpmf(k1, n1, p0 + delta) - stats.binom.logpmf(k0, n0, p0)

    ends = max(0, -delta) + 1e-12, min(1, 1 - delta) - 1e-12
    truth = optimize.minimize_scalar(loss, bounds=ends, method="bounded", options={"xatol": 1e-10}).x
    p1, p0 = intervals.restricted_rates(k1, n1, k0, n0, delta)
    assert p1 - p0 == pytest.approx(delta, abs=1e-12)
    assert p0 == pytest.approx(truth, abs=1e-5)


def exact_coverage(low, high, truth, *binomials):
    """Probability that low..high, given for every outcome, holds the truth: plain loops over the outcomes."""
    total = 0.0
    for outcome in itertools.product(*(range(n + 1) for n, _ in binomials)):
        if low[outcome] <= truth + 1e-9 and truth - 1e-9 <= high[outcome]:
            total += np.prod([stats_pmf(n, p)[k] for k, (n, p) in zip(outcome, binomials, strict=True)])
    return total


_PMF = {}


def stats_pmf(n, p):
    if (n, p) not in _PMF:
        _PMF[n, p] = stats.binom.pmf(np.arange(n + 1), n, p)
    return _PMF[n, p]


@pytest.mark.parametrize(("n1", "n0"), [(3, 3), (5, 3), (3, 10), (10, 10), (12, 5)])
def test_differences_by_default_hold_the_truth(n1, n0):
    found = intervals.difference(np.arange(n1 + 1)[:, None], n1, np.arange(n0 + 1), n0)
    coverage = [
        exact_coverage(found.low, found.high, p1 - p0, (n1, p1), (n0, p0)) for p1, p0 in itertools.product(RATES, RATES)
    ]
    assert np.mean(coverage) >= 0.95
    assert min(coverage) >= 0.90


@pytest.mark.parametrize("n", [3, 5, 10, 30])
def test_single_rates_by_default_hold_the_truth(n):
    found = intervals.proportion(np.arange(n + 1), n)
    coverage = [exact_coverage(found.low, found.high, p, (n, p)) for p in RATES]
    assert np.mean(coverage) >= 0.95
    assert min(coverage) >= 0.90


@pytest.mark.parametrize("numbers", [(3, 3), (5, 10)])
def test_means_by_default_hold_the_truth(numbers):
    counts = np.stack(np.meshgrid(*(np.arange(n + 1) for n in numbers), indexing="ij"))
    found = intervals.mean_of_proportions(counts, np.array(numbers)[:, None, None])
    coverage = [
        exact_coverage(found.low, found.high, np.mean(rates), *zip(numbers, rates, strict=True))
        for rates in itertools.product(RATES, RATES)
    ]
    assert np.mean(coverage) >= 0.95
    assert min(coverage) >= 0.87


def test_a_mean_of_one_ratio_is_that_ratio_and_ratios_without_runs_do_not_count():
    alone = intervals.proportion([3, 4], [5, 4])
    mean = intervals.mean_of_proportions([[3, 4], [0, 0]], [[5, 4], [0, 0]])
    np.testing.assert_allclose(mean.low, alone.low)
    np.testing.assert_allclose(mean.high, alone.high)


def test_an_interval_that_leaves_out_the_estimate_has_no_distance_on_that_side():
    """At a level of 2 % the Jeffreys interval of 1 in 5 lies above 0.2, that of 4 in 5 below 0.8."""
    low1, high1 = stats.beta.ppf([0.49, 0.51], 1.5, 4.5)
    low0, high0 = stats.beta.ppf([0.49, 0.51], 4.5, 1.5)
    assert low1 > 0.2
    assert high0 < 0.8
    found = intervals.difference([1], [5], [4], [5], level=0.02)
    assert found.low[0] == pytest.approx(0.2 - 0.8)
    assert found.high[0] == pytest.approx(0.2 - 0.8 + np.hypot(high1 - 0.2, 0.8 - low0))
    mean = intervals.mean_of_proportions([[1], [1]], [[5], [5]], level=0.02)
    assert mean.low[0] == pytest.approx(0.2)
    assert mean.high[0] == pytest.approx(0.2 + np.hypot(high1 - 0.2, high1 - 0.2) / 2)


def test_no_runs_have_no_interval():
    for method in intervals.DIFFERENCE_METHODS:
        found = intervals.difference([0, 1, 0, 1], [0, 2, 0, 2], [1, 0, 0, 1], [3, 0, 0, 2], method=method)
        assert np.isnan(found.low).tolist() == np.isnan(found.high).tolist() == [True, True, True, False]
    for method in intervals.PROPORTION_METHODS:
        found = intervals.proportion([0, 1], [0, 2], method=method)
        assert np.isnan(found.low).tolist() == np.isnan(found.high).tolist() == [True, False]
        assert np.isnan(intervals.mean_of_proportions([[0]], [[0]], method=method).low).all()


@pytest.mark.parametrize("method", intervals.DIFFERENCE_METHODS)
def test_differences_are_the_mirror_images_of_exchanged_sides_within_their_range(method):
    generator = np.random.default_rng(0)
    n1, n0 = generator.integers(1, 40, (2, 300))
    k1, k0 = generator.integers(0, n1 + 1), generator.integers(0, n0 + 1)
    found = intervals.difference(k1, n1, k0, n0, method=method)
    mirrored = intervals.difference(k0, n0, k1, n1, method=method)
    wrong = intervals.difference(n1 - k1, n1, n0 - k0, n0, method=method)
    for other in (mirrored, wrong):
        np.testing.assert_allclose(found.low, -other.high, atol=1e-9)
    wider = intervals.difference(k1, n1, k0, n0, level=0.99, method=method)
    assert (wider.low <= found.low).all()
    assert (found.low <= found.high).all()
    assert (np.abs(np.stack([wider.low, wider.high])) <= 1 + 1e-12).all()


def test_counts_are_broadcast():
    found = intervals.difference(np.arange(4)[:, None], 3, np.arange(6), 5)
    assert found.low.shape == (4, 6)
    assert found.low[2, 4] == intervals.difference(2, 3, 4, 5).low


def test_what_is_no_count_is_refused():
    with pytest.raises(errors.InvalidValueError, match=r"count_in: got 4 of 3 runs \(num_in\), expected whole numbers"):
        intervals.difference([1, 4], 3, 0, 1)
    with pytest.raises(errors.InvalidValueError, match="count_heldout: got -1 of 2"):
        intervals.difference(1, 3, -1, 2)
    with pytest.raises(errors.InvalidValueError, match=r"count: got 0\.5 of 3"):
        intervals.proportion(0.5, 3)
    with pytest.raises(errors.InvalidValueError, match=r"count: got 1 of 2\.5"):
        intervals.proportion(1, 2.5)
    with pytest.raises(errors.InvalidValueError, match="count: got nan of 3"):
        intervals.mean_of_proportions([[np.nan]], [[3]])


@pytest.mark.parametrize("level", [0, 1, 95, float("nan")])
def test_levels_are_shares(level):
    with pytest.raises(errors.InvalidValueError, match=f"level: got {level}, expected a share"):
        intervals.proportion(1, 2, level=level)
    with pytest.raises(errors.InvalidValueError, match="level"):
        intervals.difference(1, 2, 1, 2, level=level)


def test_unknown_methods_are_named_with_the_known_ones():
    with pytest.raises(errors.InvalidValueError, match="method: got 'wald', expected one of newcombe, mover_jeffreys"):
        intervals.difference(1, 2, 1, 2, method="wald")
    with pytest.raises(errors.InvalidValueError, match="expected one of wilson, jeffreys"):
        intervals.proportion(1, 2, method="newcombe")
