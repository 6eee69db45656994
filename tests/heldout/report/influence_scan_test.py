"""Tests of heldout.report.influence_scan against plain NumPy on the whole matrix."""

import dataclasses
import math

import numpy as np
import pytest

from heldout.report import influence_scan, selection
from tests.heldout.report import simulated
from zoo import errors


def _scan(scores, max_pairs=1000, memorization=-1.0):
    return influence_scan.scan(scores, pairs_influence=0.3, pairs_memorization=memorization, max_pairs=max_pairs)


@pytest.fixture(scope="module")
def scores():
    return simulated.saved().ratios[0.5]


def test_counts_cover_every_pair(scores):
    scan = _scan(scores)
    values, sides = scores.subset_influence, scores.sides
    assert scan.num_pairs == simulated.NUM_TRAIN * simulated.NUM_TEST
    assert scan.num_missing == np.isnan(values).sum() == simulated.NUM_TEST  # one example no run held out
    constant = np.isin(sides.num_right, [0, scores.num_runs])
    assert constant[0]
    assert scan.num_constant == (simulated.NUM_TRAIN - 1) * constant.sum()
    assert scan.bin_counts.sum() + scan.num_missing + scan.num_constant == scan.num_pairs
    np.testing.assert_allclose(scan.largest_per_test, np.nanmax(np.abs(values), axis=0))
    support = selection.support(scores)
    assert scan.typical_step == 1 / np.median(support[support > 0])


def common_errors(scores):
    """Standard errors of all pairs that are neither missing nor constant, at the common rate of both sides."""
    sides = scores.sides
    with np.errstate(divide="ignore"):
        rows = 1 / sides.num_in + 1 / sides.num_heldout
    rate = sides.num_right.astype(float) / scores.num_runs
    spread = np.sqrt(rows[:, None] * rate * (1 - rate))
    return spread[np.isfinite(spread) & (spread > 0)]


def test_the_typical_error_is_that_at_common_rates(scores):
    assert _scan(scores).typical_error == pytest.approx(np.sqrt(np.mean(common_errors(scores) ** 2)))


def test_noise_is_the_normal_mixture(scores):
    noise = _scan(scores).noise_counts
    spread = common_errors(scores)
    assert noise.sum() == pytest.approx(len(spread))
    centres = (np.arange(influence_scan.NUM_BINS) - influence_scan.NUM_BINS // 2) * influence_scan.BIN_WIDTH
    for width in (0.05, 0.1, 0.3):
        edge = width + influence_scan.BIN_WIDTH / 2
        truth = sum(math.erf(edge / one / math.sqrt(2)) for one in spread)
        assert noise[np.abs(centres) <= width].sum() == pytest.approx(truth, rel=0.01)


def test_bins_are_centred(scores):
    scan = _scan(scores)
    values = scores.subset_influence
    varied = (scores.sides.num_right > 0) & (scores.sides.num_right < scores.num_runs)
    centres = (np.arange(influence_scan.NUM_BINS) - influence_scan.NUM_BINS // 2) * influence_scan.BIN_WIDTH
    assert centres[influence_scan.NUM_BINS // 2] == 0
    mean = (scan.bin_counts * centres).sum() / scan.bin_counts.sum()
    assert mean == pytest.approx(np.nanmean(values[:, varied]), abs=influence_scan.BIN_WIDTH / 2)


def test_strong_pairs_equal_a_full_search(scores):
    scan = _scan(scores, memorization=0.1)
    values = scores.subset_influence
    strong = (np.abs(values) >= np.float32(0.3)) & (scores.memorization.values >= 0.1)[:, None]
    assert scan.num_helpful == (strong & (values > 0)).sum() > 0
    assert scan.num_harmful == (strong & (values < 0)).sum() > 0
    assert {(pair.train_index, pair.test_index) for pair in scan.pairs} == set(zip(*np.nonzero(strong), strict=True))
    sizes = [abs(pair.value) for pair in scan.pairs]
    assert sizes == sorted(sizes, reverse=True)
    first = scan.pairs[0]
    assert (first.train_index, first.test_index, first.value) == (simulated.MEMORIZED, simulated.DEPENDENT_TEST, 1.0)


def test_at_most_max_pairs_are_kept_and_all_are_counted(scores):
    scan, everything = _scan(scores, max_pairs=3), _scan(scores)
    assert scan.pairs == everything.pairs[:3]
    assert scan.num_helpful == everything.num_helpful > 3


@pytest.mark.parametrize(("influence", "memorization"), [(0.05, 0.2), (0.3, -2.0)])
def test_pairs_that_were_not_kept_are_refused(scores, influence, memorization):
    with pytest.raises(errors.InvalidValueError, match=r"hold pairs from 0\.1 and -1 on; .* --overwrite"):
        influence_scan.scan(scores, pairs_influence=influence, pairs_memorization=memorization, max_pairs=10)


def test_a_matrix_without_values(scores):
    nobody = np.zeros(simulated.NUM_TRAIN, np.int64)
    memorization = dataclasses.replace(scores.memorization, num_heldout=nobody)
    empty = np.full_like(scores.subset_influence, np.nan)
    empty_scores = simulated.with_influence(dataclasses.replace(scores, memorization=memorization), empty)
    scan = _scan(empty_scores)
    assert scan.num_missing == scan.num_pairs
    assert scan.pairs == ()
    assert math.isnan(scan.typical_error)
    assert np.isnan(scan.largest_per_test).all()
    assert influence_scan.strongest_pair(empty_scores) is None


def test_the_strongest_pair_of_all(scores):
    pair = influence_scan.strongest_pair(scores)
    assert pair == influence_scan.Pair(simulated.MEMORIZED, simulated.DEPENDENT_TEST, 1.0, 0.0)
    harm = scores.subset_influence.copy()
    harm[simulated.MEMORIZED, simulated.DEPENDENT_TEST] = 0.0
    harm[21, 3] = -0.96875
    pair = influence_scan.strongest_pair(simulated.with_influence(scores, harm))
    assert (pair.train_index, pair.test_index, pair.value) == (21, 3, -0.96875)
    assert influence_scan.strongest_pair(simulated.with_influence(scores, 0 * harm)) is None


def _with_few(scores, index):
    few = scores.memorization.num_heldout.copy()
    few[index] = 2
    values = np.ones(simulated.NUM_TRAIN)
    return dataclasses.replace(
        scores, memorization=dataclasses.replace(scores.memorization, values=values, num_heldout=few)
    )


def test_of_equally_strong_pairs_the_one_with_more_runs_is_taken(scores):
    values = np.zeros_like(scores.subset_influence)
    values[3, 2], values[40, 2], values[40, 5] = 1.0, -1.0, 1.0
    pair = influence_scan.strongest_pair(simulated.with_influence(_with_few(scores, 3), values))
    assert (pair.train_index, pair.test_index, pair.value) == (40, 2, -1.0)


def test_of_equal_pairs_the_one_with_more_runs_comes_first(scores, monkeypatch):
    # No runs could have given these values.
    monkeypatch.setattr(influence_scan, "_num_sure", lambda *_: 0)
    values = np.zeros_like(scores.subset_influence)
    values[[3, 40], [2, 2]] = 1.0
    scan = _scan(simulated.with_influence(_with_few(scores, 3), values))
    assert [pair.train_index for pair in scan.pairs] == [40, 3]


def test_the_strongest_of_one_example(scores):
    values = scores.subset_influence
    found = influence_scan.of_train(scores, 20, 5)
    order = np.lexsort((np.arange(simulated.NUM_TEST), -np.abs(values[20])))[:5]
    assert [pair.test_index for pair in found] == order.tolist()
    assert [pair.value for pair in found] == values[20, order].tolist()
    helpful, harmful = influence_scan.of_test(scores, 7, 3)
    column = np.where(np.isnan(values[:, 7]), 0, values[:, 7])
    assert [pair.value for pair in helpful] == np.sort(column)[::-1][:3].tolist()
    assert [pair.value for pair in harmful] == np.sort(column)[:3].tolist()
    for pair in (*found, *helpful, *harmful):
        place = np.array(pair.train_index), np.array(pair.test_index)
        assert pair.standard_error == scores.influence_standard_error(*place, np.float32(pair.value))
