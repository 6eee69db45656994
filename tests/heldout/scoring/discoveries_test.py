"""p-values against exact rational arithmetic and enumeration; lists against SciPy and simulated families."""

import fractions
import itertools
import math

import numpy as np
import pytest
from scipy import stats

from heldout.scoring import discoveries, intervals, scores
from zoo import errors


def exact_tail(k1, n1, k0, n0, alternative="greater"):
    """Fisher's one-sided p-value as a fraction, by counting."""
    right = k1 + k0
    wanted = [k for k in range(n1 + 1) if (k >= k1 if alternative == "greater" else k <= k1) and 0 <= right - k <= n0]
    return fractions.Fraction(
        sum(math.comb(n1, k) * math.comb(n0, right - k) for k in wanted), math.comb(n1 + n0, right)
    )


def all_tables(n1, n0):
    return np.array(list(itertools.product(range(n1 + 1), range(n0 + 1)))).T


@pytest.mark.parametrize("alternative", discoveries.ALTERNATIVES)
@pytest.mark.parametrize(("n1", "n0"), [(1, 1), (5, 3), (3, 8), (20, 9)])
def test_p_values_are_those_of_counting(n1, n0, alternative):
    k1, k0 = all_tables(n1, n0)
    found = discoveries.no_effect_p_values(k1, n1, k0, n0, alternative)
    truth = [float(exact_tail(int(a), n1, int(b), n0, alternative)) for a, b in zip(k1, k0, strict=True)]
    np.testing.assert_allclose(found, truth, rtol=1e-12)


@pytest.mark.parametrize(
    ("k1", "n1", "k0", "n0"),
    [(1400, 1400, 0, 600), (1000, 1400, 380, 600), (900, 1400, 400, 600), (2, 1400, 598, 600), (1399, 1400, 5, 600)],
)
def test_logarithms_of_p_values_of_many_runs_are_those_of_counting(k1, n1, k0, n0):
    exact = exact_tail(k1, n1, k0, n0)
    truth = math.log(exact.numerator) - math.log(exact.denominator)
    assert discoveries.no_effect_log_p_values(k1, n1, k0, n0) == pytest.approx(truth, rel=1e-9, abs=1e-11)


def test_p_values_do_not_depend_on_what_else_is_computed():
    generator = np.random.default_rng(0)
    n1 = generator.integers(1, 300, (150, 150))  # more than one block
    k1, k0 = generator.integers(0, n1 + 1), generator.integers(0, 101, n1.shape)
    found = discoveries.no_effect_log_p_values(k1, n1, k0, 100)
    for i, j in ((0, 0), (149, 149), (110, 3)):
        assert found[i, j] == discoveries.no_effect_log_p_values(k1[i, j], n1[i, j], k0[i, j], 100)


@pytest.mark.parametrize(("p1", "p0"), [(0.5, 0.5), (0.9, 0.9), (0.02, 0.02), (0.3, 0.6)])
def test_true_null_hypotheses_have_small_p_values_no_more_often_than_they_may(p1, p0):
    n1, n0 = 14, 6
    k1, k0 = all_tables(n1, n0)
    weight = stats.binom.pmf(k1, n1, p1) * stats.binom.pmf(k0, n0, p0)
    found = discoveries.no_effect_p_values(k1, n1, k0, n0)
    for size in np.unique(found):
        assert weight[found <= size].sum() <= size * (1 + 1e-9)


@pytest.mark.parametrize(("p1", "p0"), [(0.55, 0.3), (0.95, 0.7)])
def test_tests_of_a_threshold_have_about_the_size_they_say(p1, p0):
    n1, n0 = 140, 60
    k1, k0 = all_tables(n1, n0)
    weight = stats.binom.pmf(k1, n1, p1) * stats.binom.pmf(k0, n0, p0)
    found = discoveries.threshold_p_values(k1, n1, k0, n0, 0.25)
    assert weight[found <= 0.05].sum() == pytest.approx(0.05, abs=0.012)
    assert weight[found <= 0.01].sum() == pytest.approx(0.01, abs=0.005)


def test_a_threshold_is_rejected_where_the_interval_lies_above_it():
    k1, k0 = all_tables(20, 9)
    low = intervals.difference(k1, 20, k0, 9, level=0.9, method="miettinen_nurminen").low
    found = discoveries.threshold_p_values(k1, 20, k0, 9, 0.2)
    # Ends within rounding of the threshold may fall to either side.
    clear = np.abs(low - 0.2) > 1e-6
    np.testing.assert_array_equal((found < 0.05)[clear], (low > 0.2)[clear])


def test_no_runs_have_no_p_value_and_runs_that_agree_speak_for_nothing():
    for p_values in (discoveries.no_effect_p_values, lambda *counts: discoveries.threshold_p_values(*counts, 0.0)):
        found = p_values([0, 1, 3, 0], [0, 1, 3, 4], [1, 0, 2, 0], [1, 0, 2, 9])
        assert np.isnan(found).tolist() == [True, True, False, False]
        assert found[2:].tolist() == [1, 1]


@pytest.mark.parametrize("method", discoveries.METHODS)
def test_lists_and_adjusted_p_values_are_those_of_scipy(method):
    generator = np.random.default_rng(1)
    p_values = np.concatenate([generator.random(300), generator.beta(0.1, 20, 60)]).round(4)  # with ties
    short = {"benjamini_hochberg": "bh", "benjamini_yekutieli": "by"}[method]
    adjusted = stats.false_discovery_control(p_values, method=short)
    np.testing.assert_allclose(discoveries.adjusted_p_values(p_values, method), adjusted, rtol=1e-12)
    for rate in (0.01, 0.05, 0.2):
        found = discoveries.false_discovery(p_values, rate=rate, method=method)
        np.testing.assert_array_equal(found.is_discovery, adjusted <= rate)
        assert found.is_whole
        assert found.threshold == p_values[adjusted <= rate].max()


def test_weights_are_those_of_the_papers():
    for num_tests in (1, 2, 7, 1000):
        exact = float(sum(fractions.Fraction(1, i) for i in range(1, num_tests + 1)))
        assert discoveries.weight(num_tests, "benjamini_yekutieli") == pytest.approx(exact, rel=1e-12)
        assert discoveries.weight(num_tests, "benjamini_hochberg") == 1
    assert discoveries.weight(5 * 10**8, discoveries.OF_PAIRS) == pytest.approx(20.607, abs=0.001)


def test_what_has_no_p_value_is_no_test():
    p_values = np.array([[0.01, np.nan], [0.024, 0.9]])
    found = discoveries.false_discovery(p_values, rate=0.05)
    assert found.is_discovery.tolist() == [[True, False], [True, False]]
    assert found.num_tests == 3
    np.testing.assert_allclose(discoveries.adjusted_p_values(p_values), [[0.03, np.nan], [0.036, 0.9]])


def test_a_p_value_at_the_cut_itself_is_listed():
    assert discoveries.false_discovery(np.array([0.125, 0.5]), rate=0.25).is_discovery.tolist() == [True, False]
    assert discoveries.false_discovery(np.array([0.25, 0.25]), rate=0.25).is_discovery.all()


def test_empty_lists():
    none = discoveries.false_discovery(np.array([0.3, 0.9]))
    assert not none.is_discovery.any()
    assert np.isnan(none.threshold)
    assert not discoveries.false_discovery(np.array([]), num_tests=0).is_discovery.size
    assert not discoveries.false_discovery(np.array([np.nan])).is_discovery.any()


def test_p_values_up_to_a_bound_give_the_list_of_the_whole_family():
    generator = np.random.default_rng(2)
    p_values = np.concatenate([generator.random(5000), generator.beta(0.1, 200, 300)])
    for method in discoveries.METHODS:
        whole = discoveries.false_discovery(p_values, rate=0.1, method=method)
        for bound in (0.2, 0.1, 0.02):
            kept = p_values[p_values <= bound]
            found = discoveries.false_discovery(kept, len(p_values), 0.1, method, bound=bound)
            np.testing.assert_array_equal(kept[found.is_discovery], p_values[whole.is_discovery & (p_values <= bound)])
            assert found.threshold == whole.threshold
            assert found.is_whole == (bound >= 0.1 or method == "benjamini_yekutieli")


def test_a_bound_that_would_decide_is_refused():
    kept = np.full(100, 1e-4)
    # The 101st of 1000 p-values may be as large as 0.00505: unknown beyond the bound of 0.001.
    for bound in (0.001, 0.003, 0.00502):
        with pytest.raises(errors.InvalidValueError, match=rf"bound: got {bound:.3g}, .* keep all up to 0\.05"):
            discoveries.false_discovery(kept, 1000, 0.05, bound=bound)
    assert discoveries.false_discovery(kept, 1000, 0.05, bound=0.0051).is_discovery.all()


def families(num_null, num_effects, generator, num_runs=60):
    """p-values of examples without and with an effect, and which are which."""
    p0 = generator.uniform(0.1, 0.9, num_null + num_effects)
    p1 = p0.copy()
    p1[num_null:] = np.minimum(1, p0[num_null:] + 0.5)
    n1 = generator.binomial(num_runs, 0.7, len(p0))
    given = (generator.binomial(n1, p1), n1, generator.binomial(num_runs - n1, p0), num_runs - n1)
    return discoveries.no_effect_p_values(*given), np.arange(len(p0)) < num_null


@pytest.mark.parametrize(("num_null", "num_effects"), [(200, 0), (150, 50)])
def test_the_share_of_false_entries_stays_below_the_rate(num_null, num_effects):
    generator = np.random.default_rng(3)
    shares, found_effects = [], 0
    for _ in range(200):
        p_values, is_null = families(num_null, num_effects, generator)
        listed = discoveries.false_discovery(p_values, rate=0.2).is_discovery
        shares.append(np.sum(listed & is_null) / max(1, np.sum(listed)))
        found_effects += np.sum(listed & ~is_null)
    assert np.mean(shares) <= 0.2 + 3 * np.std(shares) / np.sqrt(200)
    assert found_effects >= 0.5 * 200 * num_effects  # the list is not right for being empty


def test_runs_of_unequal_quality_do_not_raise_the_share_of_false_entries():
    generator = np.random.default_rng(4)
    num_runs, num_examples, num_effects, shares = 60, 200, 40, []
    effect = np.where(np.arange(num_examples) < num_effects, 2.5, 0.0)
    for _ in range(60):
        mask = np.argsort(generator.random((num_runs, num_examples)), axis=1) < 140  # subsets of one size
        quality = generator.normal(size=(num_runs, 1)) + generator.normal(size=num_examples)
        right = generator.normal(size=mask.shape) < quality + effect * mask
        counts = scores.SideCounts(
            mask.sum(axis=0), (~mask).sum(axis=0), (mask & right).sum(axis=0), (~mask & right).sum(axis=0)
        )
        listed = discoveries.memorized_examples(counts, rate=0.2).is_discovery
        shares.append(listed[num_effects:].sum() / max(1, listed.sum()))
    assert np.mean(shares) <= 0.2 + 3 * np.std(shares) / np.sqrt(60)
    assert np.mean(shares) > 0  # false entries do occur


@pytest.mark.parametrize("method", discoveries.METHODS)
def test_pairs_whose_test_examples_are_alike_do_not_raise_the_share_of_false_entries(method):
    """Ten test examples at a time hang on one taste of the run, half of them the other way round."""
    generator = np.random.default_rng(5)
    num_runs, num_train, num_test, num_zoos, shares, powers = 2000, 40, 60, 40, [], []
    sign = np.where(np.arange(num_test) % 10 < 5, 1, -1)
    for _ in range(num_zoos):
        mask = np.argsort(generator.random((num_runs, num_train)), axis=1) < num_train // 2
        tastes = np.repeat(generator.normal(size=(num_runs, num_test // 10)), 10, axis=1) * sign
        latent = (tastes + generator.normal(size=tastes.shape)) / np.sqrt(2)
        helped = np.arange(num_test) < 20  # test example j by training example j
        right = latent < np.where(helped & mask[:, np.arange(num_test) % num_train], 0.7, -0.2)
        right_in, n1 = mask.T.astype(int) @ right.astype(int), mask.sum(axis=0)[:, None]
        p_values = discoveries.no_effect_p_values(right_in, n1, right.sum(axis=0) - right_in, num_runs - n1)
        listed = discoveries.false_discovery(p_values, rate=0.2, method=method).is_discovery
        is_true = np.zeros(listed.shape, bool)
        is_true[np.arange(20), np.arange(20)] = True
        shares.append((listed & ~is_true).sum() / max(1, listed.sum()))
        powers.append(listed[is_true].mean())
    assert np.mean(shares) <= 0.2 + 3 * np.std(shares) / np.sqrt(num_zoos)
    assert np.mean(powers) > 0.8
    if method == "benjamini_hochberg":
        assert np.mean(shares) > 0.05  # or the family would tell nothing


def test_memorized_examples_are_listed_from_counts():
    counts = scores.SideCounts(
        *(np.array(x) for x in ([70, 70, 70, 0], [30, 30, 30, 9], [70, 69, 69, 0], [1, 18, 29, 5]))
    )
    assert discoveries.memorized_examples(counts).is_discovery.tolist() == [True, True, False, False]
    assert discoveries.memorized_examples(counts, threshold=0.5).is_discovery.tolist() == [True, False, False, False]
    assert discoveries.memorized_examples(counts).num_tests == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rate": 0}, "rate: got 0, expected a share"),
        ({"rate": 1.5}, "rate: got 1.5"),
        ({"method": "bh"}, "method: got 'bh', expected one of benjamini_hochberg, benjamini_yekutieli"),
        ({"bound": 0}, "bound: got 0, expected a p-value above 0"),
        ({"bound": 0.2, "num_tests": 9}, "p_values: got values from 0.1 to 0.5"),
        ({"bound": 0.6}, "num_tests: got none, but the p-values are only those up to 0.6"),
        ({"num_tests": 1}, "num_tests: got 1, expected at least the 2 p-values"),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(errors.InvalidValueError, match=message):
        discoveries.false_discovery(np.array([0.1, 0.5]), **arguments)


def test_p_values_above_one_are_refused():
    with pytest.raises(errors.InvalidValueError, match=r"p_values: got values from 0\.1 to 1\.5"):
        discoveries.adjusted_p_values(np.array([0.1, 1.5]))
    with pytest.raises(errors.InvalidValueError, match="method: got 'holm'"):
        discoveries.adjusted_p_values(np.array([0.1]), "holm")


def test_tests_refuse_what_is_no_count_no_threshold_and_no_alternative():
    with pytest.raises(errors.InvalidValueError, match="count_in: got 3 of 2"):
        discoveries.no_effect_p_values(3, 2, 0, 1)
    with pytest.raises(errors.InvalidValueError, match="alternative: got 'two-sided', expected one of greater, less"):
        discoveries.no_effect_p_values(1, 2, 0, 1, "two-sided")
    with pytest.raises(errors.InvalidValueError, match="count_heldout: got 2 of 1"):
        discoveries.threshold_p_values(1, 2, 2, 1, 0.2)
    for threshold in (-1, 1, float("nan")):
        with pytest.raises(errors.InvalidValueError, match=f"threshold: got {threshold}, expected a difference"):
            discoveries.threshold_p_values(1, 2, 0, 1, threshold)
