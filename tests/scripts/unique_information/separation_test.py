"""AUROC, its intervals, average precision and the highest scores, against their definitions written out."""

import itertools
import math

import numpy as np
import pytest
from scipy import special
from sklearn import metrics

from scripts.unique_information import separation
from zoo import errors


def scores(seed, numbers=(7, 12), ties=False):
    generator = np.random.default_rng(seed)
    first, second = generator.normal(0.7, 1, numbers[0]), generator.normal(size=numbers[1])
    return (np.round(first), np.round(second)) if ties else (first, second)


def by_all_pairs(first, second):
    return np.mean([(x > y) + 0.5 * (x == y) for x, y in itertools.product(first, second)])


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_the_area_is_that_of_all_pairs(seed, ties):
    first, second = scores(seed, ties=ties)
    found = separation.auroc(first, second)
    assert found.value == pytest.approx(by_all_pairs(first, second), abs=1e-14)
    truth = np.repeat([1, 0], [len(first), len(second)])
    assert found.value == pytest.approx(metrics.roc_auc_score(truth, np.concatenate([first, second])), abs=1e-12)
    assert separation.auroc(second, first).value == pytest.approx(1 - found.value, abs=1e-14)
    assert found.num_examples == 19


@pytest.mark.parametrize("ties", [False, True])
def test_delong_is_its_formula_with_loops(ties):
    first, second = scores(5, ties=ties)
    kernel = np.array([[(x > y) + 0.5 * (x == y) for y in second] for x in first])
    area, variance = kernel.mean(), 0.0
    for parts in (kernel.mean(axis=1), kernel.mean(axis=0)):
        variance += sum((part - area) ** 2 for part in parts) / (len(parts) - 1) / len(parts)
    half = 1.959964 * math.sqrt(variance) / (area * (1 - area))
    ends = special.expit([special.logit(area) - half, special.logit(area) + half])
    found = separation.auroc(first, second, method="delong")
    np.testing.assert_allclose([found.low, found.high], ends, rtol=1e-6)


def test_newcombe_ends_where_the_estimate_is_just_not_refused():
    first, second = scores(6, (9, 15))
    found = separation.auroc(first, second, method="newcombe")
    for end in (found.low, found.high):
        shape = (9 + 15) / 2 - 1
        spread = end * (1 - end) * (1 + shape * (1 - end) / (2 - end) + shape * end / (1 + end)) / (9 * 15)
        assert abs(end - found.value) == pytest.approx(1.959964 * math.sqrt(spread), rel=1e-6)
    assert found.low < found.value < found.high


def test_complete_separation_is_not_certain():
    low, high = np.arange(5.0), np.arange(10.0, 40.0)
    for method in ("delong", "newcombe"):
        above = separation.auroc(high, low, method=method)
        assert (above.value, above.high) == (1, 1)
        assert 0.5 < above.low < 0.999
        below = separation.auroc(low, high, method=method)
        assert (below.value, below.low) == (0, 0)
        assert below.high == pytest.approx(1 - above.low)


def test_the_bootstrap_follows_its_seed_and_holds_the_estimate():
    first, second = scores(7, (20, 30))
    one, again = (separation.auroc(first, second, method="bootstrap", num_draws=50, seed=3) for _ in range(2))
    assert one == again
    assert one.low < one.value < one.high
    assert separation.auroc(first, second, method="bootstrap", num_draws=50, seed=4) != one


def test_too_few_examples_have_no_interval_and_none_have_no_area():
    one = separation.auroc(np.array([1.0]), np.array([0.0, 2.0]))
    assert one.value == 0.5
    assert math.isnan(one.low)
    assert math.isnan(separation.auroc(np.zeros(0), np.ones(3)).value)
    assert math.isnan(separation.average_precision(np.ones(3), np.zeros(0)).value)
    with pytest.raises(errors.InvalidValueError, match="--method=normal: expected one of delong, newcombe, bootstrap"):
        separation.auroc(np.ones(2), np.ones(2), method="normal")


def test_average_precision_is_the_mean_over_the_first_set():
    first, second = scores(8)
    precision = [np.sum(first >= x) / (np.sum(first >= x) + np.sum(second >= x)) for x in first]
    found = separation.average_precision(first, second, num_draws=20)
    assert found.value == pytest.approx(np.mean(precision))
    assert found.low < found.value < found.high


def test_the_highest_with_ties_are_what_chance_gives():
    first, second = np.array([5.0, 2.0, 2.0, 0.0]), np.array([4.0, 2.0, 1.0, 1.0, 0.0, 0.0])
    sharp = separation.top(first, second, 0.2)
    assert (sharp.number, sharp.num_first, sharp.precision, sharp.recall) == (2, 1, 0.5, 0.25)
    # Above the third there is one of the first set; of three equal ones, two of it, one is in the list.
    assert separation.top(first, second, 0.3).num_first == pytest.approx(1 + 2 / 3)
    assert separation.top(first, second, 1).recall == 1
    assert separation.top(first, second, 0.001).number == 1
    empty = separation.top(np.zeros(0), np.zeros(0), 0.5)
    assert (empty.number, empty.num_first) == (0, 0)
    assert math.isnan(empty.precision)
