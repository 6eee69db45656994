"""Correlations and overlaps against slow obvious code, scipy, published examples and exhaustive enumeration."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from heldout.scoring import agreement
from zoo import errors


def pair(seed, number=60, decimals=1):
    """Two related scores with ties."""
    generator = np.random.default_rng(seed)
    first = np.round(generator.normal(size=number), decimals)
    return first, np.round(first + generator.normal(size=number), decimals)


def plain_tau_b(x, y):
    """Kendall's tau-b, pair by pair."""
    concordant = ties_x = ties_y = 0
    pairs = list(itertools.combinations(range(len(x)), 2))
    for i, j in pairs:
        concordant += np.sign(x[i] - x[j]) * np.sign(y[i] - y[j])
        ties_x += x[i] == x[j]
        ties_y += y[i] == y[j]
    return concordant / math.sqrt((len(pairs) - ties_x) * (len(pairs) - ties_y))


def plain_ranks(values):
    """Mean rank of each value: how many are smaller, and half of the others that are equal."""
    return [sum(v < w for v in values) + (1 + sum(v == w for v in values)) / 2 for w in values]


def plain_pearson(x, y):
    mx, my = sum(x) / len(x), sum(y) / len(y)
    products = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True))
    return products / math.sqrt(sum((a - mx) ** 2 for a in x) * sum((b - my) ** 2 for b in y))


@pytest.mark.parametrize("method", agreement.METHODS)
def test_correlations_equal_plain_loops(method):
    first, second = pair(0)
    first[3], second[3], second[5], first[[7, 8]] = np.nan, np.nan, np.nan, np.nan
    found = agreement.agreement(first, second, method=method, num_draws=50)
    both = ~np.isnan(first) & ~np.isnan(second)
    x, y = first[both].tolist(), second[both].tolist()
    assert (found.num_examples, found.num_first_only, found.num_second_only) == (56, 1, 2)
    assert found.pearson.value == pytest.approx(plain_pearson(x, y))
    assert found.spearman.value == pytest.approx(plain_pearson(plain_ranks(x), plain_ranks(y)))
    assert found.kendall.value == pytest.approx(plain_tau_b(x, y))
    for estimate in (found.pearson, found.spearman, found.kendall):
        assert -1 <= estimate.low < estimate.value < estimate.high <= 1
        assert estimate.num_examples == 56
    assert found.method == method


def test_fisher_intervals_are_the_formulas():
    first, second = pair(1)
    found = agreement.agreement(first, second, method="fisher")
    half = stats.norm.ppf(0.975)
    for estimate, variance in (
        (found.pearson, 1 / 57),
        (found.spearman, (1 + found.spearman.value**2 / 2) / 57),
        (found.kendall, 0.437 / 56),
    ):
        middle = math.atanh(estimate.value)
        assert estimate.low == pytest.approx(math.tanh(middle - half * math.sqrt(variance)))
        assert estimate.high == pytest.approx(math.tanh(middle + half * math.sqrt(variance)))
    wanted = stats.pearsonr(first, second).confidence_interval(0.95)
    assert (found.pearson.low, found.pearson.high) == pytest.approx(tuple(wanted))


def test_bootstrap_intervals_are_those_of_redrawn_examples():
    """The weights of a draw do what indexing with it does, with ranks taken anew."""
    first, second = pair(2, 40)
    generator = np.random.default_rng(0)
    draws = [generator.integers(40, size=40) for _ in range(200)]
    found = agreement.agreement(first, second, num_draws=200, seed=0)
    linear = [plain_pearson(first[drawn].tolist(), second[drawn].tolist()) for drawn in draws]
    ranked = [plain_pearson(plain_ranks(first[drawn].tolist()), plain_ranks(second[drawn].tolist())) for drawn in draws]
    assert (found.pearson.low, found.pearson.high) == pytest.approx(tuple(np.quantile(linear, [0.025, 0.975])))
    assert (found.spearman.low, found.spearman.high) == pytest.approx(tuple(np.quantile(ranked, [0.025, 0.975])))
    kendall = [plain_tau_b(first[drawn], second[drawn]) for drawn in (generator.integers(40, size=40) for _ in draws)]
    assert (found.kendall.low, found.kendall.high) == pytest.approx(tuple(np.quantile(kendall, [0.025, 0.975])))


def test_many_examples_give_kendall_a_draw_by_the_seed():
    first, second = pair(3, 500)
    whole = agreement.agreement(first, second, method="fisher").kendall
    found = [agreement.agreement(first, second, method="fisher", max_kendall=200, seed=s).kendall for s in (0, 0, 1)]
    assert [estimate.num_examples for estimate in (whole, *found)] == [500, 200, 200, 200]
    assert found[0] == found[1] != found[2]
    assert all(abs(estimate.value - whole.value) < 4 * math.sqrt(0.437 / 196) for estimate in found)


def test_kendall_of_two_examples_is_that_of_their_one_pair():
    rising = np.arange(9.0)
    for first, second, expected in ((rising, rising**2, 1), (rising, -rising, -1)):
        drawn = agreement.agreement(first, second, method="fisher", max_kendall=2).kendall
        only = agreement.agreement(first[:2], second[:2]).kendall
        assert (drawn.value, drawn.num_examples) == (expected, 2)
        assert (only.value, only.num_examples) == (expected, 2)
        assert np.isnan([drawn.low, drawn.high, only.low, only.high]).all()


def test_scores_without_a_correlation_give_nan():
    for number in (0, 1, 6):
        found = agreement.agreement(np.ones(number), np.arange(float(number)))
        for estimate in (found.pearson, found.spearman, found.kendall):
            assert np.isnan([estimate.value, estimate.low, estimate.high]).all()
    for method in agreement.METHODS:
        few = agreement.agreement(np.arange(4.0), np.array([1.0, 3, 2, 4]), method=method)
        assert few.spearman.value == pytest.approx(0.8)
        assert np.isnan(few.spearman.low)
        assert np.isnan(few.kendall.low)
    same = agreement.agreement(np.arange(9.0), np.arange(9.0), method="fisher").pearson
    assert (same.low, same.value) == pytest.approx((1, 1))


def test_a_correlation_of_nearly_constant_scores_has_no_bootstrap_interval():
    first = np.zeros(40)
    first[0] = 1
    found = agreement.agreement(first, np.arange(40.0))
    assert not np.isnan(found.pearson.value)
    assert np.isnan(found.pearson.low)  # a third of all draws lack the one example that differs


def test_attenuation_by_hand_and_by_simulation():
    found = agreement.attenuation_corrected(agreement.Estimate(0.6, 0.5, 0.7, 9), 0.9, 0.4)
    assert (found.value, found.low, found.high, found.num_examples) == pytest.approx((1, 5 / 6, 7 / 6, 9))
    generator = np.random.default_rng(4)
    first = generator.normal(size=40_000)
    second = 0.5 * first + math.sqrt(0.75) * generator.normal(size=40_000)
    noisy = [values + noise * generator.normal(size=40_000) for values, noise in ((first, 0.7), (second, 1.1))]
    seen = agreement.agreement(*noisy, method="fisher").pearson
    corrected = agreement.attenuation_corrected(seen, 1 / (1 + 0.7**2), 1 / (1 + 1.1**2))
    assert seen.high < 0.3
    assert corrected.low < 0.5 < corrected.high
    for bad in (0, 1.2, math.nan):
        with pytest.raises(errors.InvalidValueError, match="second_reliability: got"):
            agreement.attenuation_corrected(seen, 0.9, bad)


def test_overlap_by_hand():
    first = np.array([0.9, 0.8, 0.1, np.nan, 0.7, 0.2, 0.3])
    second = np.array([0.5, 0.1, 0.6, 0.9, 0.7, 0.2, np.nan])
    top = agreement.overlap_of_top(first, second, 3)
    assert (top.num_first, top.num_second, top.num_both, top.num_examples) == (3, 3, 2, 5)
    assert top.jaccard.value == 0.5
    above = agreement.overlap_above(first, second, 0.7, 0.2)
    assert (above.num_first, above.num_second, above.num_both) == (3, 4, 2)
    assert above.jaccard.value == 2 / 5
    assert agreement.overlap_above(first, second, 0.2).num_both == 3
    everything = agreement.overlap_of_top(first, second, 99)
    assert (everything.num_first, everything.jaccard.value, everything.expected_jaccard) == (5, 1, 1)
    nothing = agreement.overlap_above(first, second, 2)
    assert np.isnan([nothing.jaccard.value, nothing.jaccard.low, nothing.expected_jaccard]).all()


def test_chance_is_the_mean_over_all_selections():
    for size, number_first, number_second in ((7, 3, 2), (6, 4, 5), (5, 0, 2), (5, 5, 5)):
        found = agreement.overlap_of_counts(number_first, number_second, 0 if number_first < 5 else 5, size)
        first, values = set(range(number_first)), []
        for second in itertools.combinations(range(size), number_second):
            values.append(len(first & set(second)) / len(first | set(second)))
        assert found.expected_jaccard == pytest.approx(np.mean(values))
    assert np.isnan(agreement.overlap_of_counts(3, 2, 1, 0).expected_jaccard)


def test_the_interval_of_an_overlap_is_wilsons():
    found = agreement.overlap_of_counts(10, 10, 0, 100).jaccard
    wanted = stats.binomtest(0, 20).proportion_ci(0.95, method="wilson")
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
    found = agreement.overlap_of_counts(50, 60, 30, 100).jaccard
    wanted = stats.binomtest(30, 80).proportion_ci(0.95, method="wilson")
    assert (found.value, found.low, found.high) == pytest.approx((30 / 80, wanted.low, wanted.high))


def test_equals_at_the_edge_are_chosen_at_random_and_counted():
    """Half of all examples are right in every run; k reaches into them, and any fixed rule would agree with itself."""
    generator = np.random.default_rng(5)
    first, second = (np.where(generator.random(4000) < 0.5, 1.0, generator.random(4000)) for _ in range(2))
    found = agreement.overlap_of_top(first, second, 1000)
    assert (found.num_tied_first, found.num_tied_second) == (1000, 1000)
    assert found.jaccard.low < found.expected_jaccard < found.jaccard.high
    whole = agreement.overlap_of_top(first, second, int(np.sum(first == 1)))
    assert whole.num_tied_first == 0
    assert agreement.overlap_of_top(first, second, 1000) == found
    assert agreement.overlap_of_top(first, second, 1000, seed=1) != found


def test_what_cannot_be_compared_is_refused():
    first, second = pair(6)
    with pytest.raises(errors.MismatchError, match=r"shapes \(59,\) and \(60,\)"):
        agreement.agreement(first[1:], second)
    with pytest.raises(errors.MismatchError, match="expected two vectors"):
        agreement.overlap_above(first[np.newaxis], second[np.newaxis], 0.5)
    with pytest.raises(errors.InvalidValueError, match="method: got 'exact', expected one of bootstrap, fisher"):
        agreement.agreement(first, second, method="exact")
    for options in ({"num_draws": 0}, {"max_kendall": 0}):
        with pytest.raises(errors.InvalidValueError, match=f"{next(iter(options))}: got 0, expected at least 1"):
            agreement.agreement(first, second, **options)
    with pytest.raises(errors.InvalidValueError, match="number: got 0"):
        agreement.overlap_of_top(first, second, 0)
