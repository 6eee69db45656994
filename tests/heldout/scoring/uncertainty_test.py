"""Intervals and adjusted p-values of a small zoo, against SciPy and against the family of all pairs."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from heldout.scoring import influence_summary, intervals, scores, uncertainty
from tests.heldout.report import simulated


@pytest.fixture(scope="module")
def saved():
    return simulated.saved()


@pytest.fixture(scope="module")
def ratio(saved):
    return saved.ratios[0.5]


def test_counts_are_those_of_the_table(ratio):
    expected = scores.count_sides(simulated.table(), 0.5)
    for name, value in vars(uncertainty.side_counts(ratio)).items():
        np.testing.assert_array_equal(value, getattr(expected, name))


def test_of_examples(ratio):
    counts = uncertainty.side_counts(ratio)
    found = uncertainty.of_examples(counts)
    assert np.isnan(found.low[simulated.NEVER_HELD_OUT])
    assert np.isnan(found.adjusted_p_value[simulated.NEVER_HELD_OUT])
    known = np.delete(np.arange(simulated.NUM_TRAIN), simulated.NEVER_HELD_OUT)
    p_values = [
        stats.fisher_exact(
            [
                [counts.num_right_in[i], counts.num_in[i] - counts.num_right_in[i]],
                [counts.num_right_heldout[i], counts.num_heldout[i] - counts.num_right_heldout[i]],
            ],
            alternative="greater",
        ).pvalue
        for i in known
    ]
    np.testing.assert_allclose(found.adjusted_p_value[known], stats.false_discovery_control(p_values), rtol=1e-9)
    assert found.adjusted_p_value[simulated.MEMORIZED] < 1e-6
    assert np.sort(found.adjusted_p_value[known])[1] > 0.01
    values = ratio.memorization.values[known]
    assert ((found.low[known] <= values) & (values <= found.high[known])).all()


def test_of_consistency(saved):
    found = uncertainty.of_consistency(saved.consistency)
    table = simulated.table()
    counts = [scores.count_sides(table, one) for one in table.subset_ratios]
    expected = intervals.mean_of_proportions(
        np.stack([one.num_right_heldout for one in counts]), np.stack([one.num_heldout for one in counts])
    )
    np.testing.assert_array_equal(found.low, expected.low)
    np.testing.assert_array_equal(found.high, expected.high)


def test_of_pairs_is_the_cut_of_the_whole_family(ratio):
    values = ratio.subset_influence
    train, test = (index.ravel() for index in np.indices(values.shape))
    found = uncertainty.of_pairs(ratio, train, test, values.ravel())
    mask, right = simulated.table().select(0.5).subset_mask(), simulated.table().select(0.5).test_correctness()
    k1 = (mask.T.astype(int) @ right.astype(int)).ravel()
    n1, t = mask.sum(axis=0)[train], right.sum(axis=0)[test]
    known = (n1 > 0) & (n1 < len(mask))
    p_values = stats.hypergeom.sf(k1 - 1, len(mask), t, n1)
    whole = stats.false_discovery_control(p_values[known], method="by")
    ours = found.adjusted_p_value[known]
    assert (ours >= whole * (1 - 1e-9)).all()
    small = whole < 0.5
    assert small.sum() >= 1
    np.testing.assert_allclose(ours[small], whole[small], rtol=1e-9)
    assert np.isnan(found.adjusted_p_value[~known]).all()
    best = simulated.MEMORIZED * simulated.NUM_TEST + simulated.DEPENDENT_TEST
    assert found.adjusted_p_value[best] < 1e-4
    assert np.sort(ours)[1] > 0.05
    expected = intervals.difference(k1[known], n1[known], (t - k1)[known], len(mask) - n1[known])
    np.testing.assert_allclose(found.low[known], expected.low, atol=1e-12)
    np.testing.assert_allclose(found.high[known], expected.high, atol=1e-12)


def test_pairs_are_judged_in_blocks(ratio, monkeypatch):
    train, test = (index.ravel() for index in np.indices(ratio.subset_influence.shape))
    whole = uncertainty.of_pairs(ratio, train, test, ratio.subset_influence.ravel()).adjusted_p_value
    monkeypatch.setattr(uncertainty, "_BLOCK", 3)
    found = uncertainty.of_pairs(ratio, train, test, ratio.subset_influence.ravel()).adjusted_p_value
    np.testing.assert_array_equal(found, whole)
    p_values = uncertainty._p_values(ratio, ratio.influence.candidates)
    assert (p_values[ratio.influence.candidates.value > 0] < 0.1).all()  # all have been looked at
    assert (p_values < 1).sum() > 6


def test_pairs_of_a_large_data_set_are_found(ratio):
    """Of 5 * 10^9 pairs, more than 32 bits can number."""
    num_train, num_test = 100_000, 50_000
    sides = np.full(num_train, 20)
    nothing = np.zeros(num_train)
    train, test = np.array([7, 50_000, 99_999], np.int32), np.array([5, 0, 49_999], np.int32)
    candidates = influence_summary.PairList(train, test, np.ones(3, np.float32))
    large = dataclasses.replace(
        ratio,
        num_runs=40,
        memorization=scores.Scores(nothing, sides, sides, nothing),
        accuracy_in=nothing,
        accuracy_heldout=nothing,
        test_accuracy=np.full(num_test, 0.5),
        influence=dataclasses.replace(ratio.influence, candidates=candidates),
        subset_influence=None,
    )
    asked = np.array([7, 7, 50_000, 99_999, 99_999]), np.array([5, 6, 0, 49_998, 49_999])
    found = uncertainty.of_pairs(large, *asked, np.ones(5, np.float32)).adjusted_p_value
    # All 20 right runs among the 20 of 40 that trained on the example; three of 5 * 10^9 pairs.
    number = num_train * num_test
    expected = number * (np.log(number) + np.euler_gamma) / 3 / math.comb(40, 20)
    np.testing.assert_allclose(found, [expected, 1, expected, 1, expected], rtol=1e-6)


def test_no_pairs_at_all(ratio):
    nothing = np.zeros(0, np.int64)
    found = uncertainty.of_pairs(ratio, nothing, nothing, np.zeros(0, np.float32))
    assert found.low.shape == found.high.shape == found.adjusted_p_value.shape == (0,)


def test_without_candidates_nothing_is_sure(ratio):
    flat = simulated.with_influence(ratio, np.zeros_like(ratio.subset_influence))
    values = ratio.subset_influence[[7], [5]]
    assert uncertainty.of_pairs(flat, np.array([7]), np.array([5]), values).adjusted_p_value[0] == 1
