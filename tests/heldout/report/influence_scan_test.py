"""Tests of heldout.report.influence_scan against plain NumPy on the whole matrix."""

import dataclasses
import math

import numpy as np
import pytest

from heldout.report import influence_scan, selection
from tests.heldout.report import simulated


def _scan(scores, max_pairs=1000, memorization=-1.0):
    return influence_scan.scan(scores, pairs_influence=0.3, pairs_memorization=memorization, max_pairs=max_pairs)


@pytest.fixture(scope="module")
def scores():
    return simulated.saved().ratios[0.5]


def test_counts_cover_every_pair(scores):
    scan = _scan(scores)
    values, spread = scores.subset_influence, scores.influence_standard_error
    assert scan.num_pairs == simulated.NUM_TRAIN * simulated.NUM_TEST
    assert scan.num_missing == np.isnan(values).sum() == simulated.NUM_TEST  # one example no run held out
    assert scan.num_constant == ((values == 0) & (spread == 0)).sum() >= simulated.NUM_TRAIN - 1
    assert scan.bin_counts.sum() + scan.num_missing + scan.num_constant == scan.num_pairs
    varied = ~np.isnan(values) & ~((values == 0) & (spread == 0))
    assert scan.typical_error == pytest.approx(math.sqrt(np.mean(spread[varied].astype(float) ** 2)))
    np.testing.assert_allclose(scan.largest_per_test, np.nanmax(np.abs(values), axis=0))
    support = selection.support(scores)
    assert scan.typical_step == 1 / np.median(support[support > 0])


def test_bins_are_centred(scores):
    scan = _scan(scores)
    values, spread = scores.subset_influence, scores.influence_standard_error
    varied = ~np.isnan(values) & ~((values == 0) & (spread == 0))
    centres = (np.arange(influence_scan.NUM_BINS) - influence_scan.NUM_BINS // 2) * influence_scan.BIN_WIDTH
    assert centres[influence_scan.NUM_BINS // 2] == 0
    mean = (scan.bin_counts * centres).sum() / scan.bin_counts.sum()
    assert mean == pytest.approx(values[varied].mean(), abs=influence_scan.BIN_WIDTH / 2)


def test_strong_pairs_equal_a_full_search(scores):
    scan = _scan(scores, memorization=0.1)
    values = scores.subset_influence
    strong = (np.abs(values) >= 0.3) & (scores.memorization.values >= 0.1)[:, None]
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


def test_block_size_does_not_matter(scores, monkeypatch):
    whole = _scan(scores, max_pairs=20)
    monkeypatch.setattr(influence_scan, "_BLOCK_VALUES", 7 * simulated.NUM_TEST)
    blocks = _scan(scores, max_pairs=20)
    assert blocks.pairs == whole.pairs
    np.testing.assert_array_equal(blocks.bin_counts, whole.bin_counts)
    np.testing.assert_array_equal(blocks.largest_per_test, whole.largest_per_test)
    np.testing.assert_allclose(blocks.noise_counts, whole.noise_counts)


def test_noise_is_the_normal_mixture(scores):
    values = np.full((2, 3), 0.1, np.float32)
    spread = np.array([[0.1, 0.1, 0.1], [0.3, 0.3, 0.3]], np.float32)
    small = dataclasses.replace(scores, subset_influence=values, influence_standard_error=spread)
    small = dataclasses.replace(
        small, memorization=dataclasses.replace(scores.memorization, values=scores.memorization.values[:2])
    )
    noise = _scan(small).noise_counts
    centres = (np.arange(influence_scan.NUM_BINS) - influence_scan.NUM_BINS // 2) * influence_scan.BIN_WIDTH
    assert noise.sum() == pytest.approx(6)
    within = noise[np.abs(centres) <= 0.1].sum()
    edge = 0.1 + influence_scan.BIN_WIDTH / 2
    truth = 3 * math.erf(edge / 0.1 / math.sqrt(2)) + 3 * math.erf(edge / 0.3 / math.sqrt(2))
    assert within == pytest.approx(truth, rel=1e-6)


def test_a_matrix_without_values(scores):
    empty = np.full_like(scores.subset_influence, np.nan)
    scan = _scan(dataclasses.replace(scores, subset_influence=empty, influence_standard_error=empty))
    assert scan.num_missing == scan.num_pairs
    assert scan.pairs == ()
    assert math.isnan(scan.typical_error)
    assert np.isnan(scan.largest_per_test).all()
    assert influence_scan.strongest_pair(dataclasses.replace(scores, subset_influence=empty)) is None


def test_the_strongest_pair_of_all(scores, monkeypatch):
    monkeypatch.setattr(influence_scan, "_BLOCK_VALUES", 7 * simulated.NUM_TEST)
    pair = influence_scan.strongest_pair(scores)
    assert pair == influence_scan.Pair(simulated.MEMORIZED, simulated.DEPENDENT_TEST, 1.0, 0.0)
    harm = scores.subset_influence.copy()
    harm[simulated.MEMORIZED, simulated.DEPENDENT_TEST] = np.nan
    harm[21, 3] = -0.96875
    pair = influence_scan.strongest_pair(dataclasses.replace(scores, subset_influence=harm))
    assert (pair.train_index, pair.test_index, pair.value) == (21, 3, -0.96875)
    assert pair.standard_error == scores.influence_standard_error[21, 3]
    assert influence_scan.strongest_pair(dataclasses.replace(scores, subset_influence=0 * harm)) is None


def test_of_equally_strong_pairs_the_one_with_more_runs_is_taken(scores):
    values = np.zeros_like(scores.subset_influence)
    values[3, 2], values[40, 2], values[40, 5] = 1.0, -1.0, 1.0
    few = scores.memorization.num_heldout.copy()
    few[3] = 2
    memorization = dataclasses.replace(scores.memorization, num_heldout=few)
    pair = influence_scan.strongest_pair(
        dataclasses.replace(scores, subset_influence=values, memorization=memorization)
    )
    assert (pair.train_index, pair.test_index, pair.value) == (40, 2, -1.0)


def test_of_equal_pairs_the_one_with_more_runs_comes_first(scores):
    values, spread = np.zeros_like(scores.subset_influence), np.zeros_like(scores.subset_influence)
    values[[3, 40], [2, 2]] = 1.0
    few = scores.memorization.num_heldout.copy()
    few[3] = 2
    memorization = dataclasses.replace(scores.memorization, values=np.ones(len(values)), num_heldout=few)
    scan = _scan(
        dataclasses.replace(scores, subset_influence=values, influence_standard_error=spread, memorization=memorization)
    )
    assert [pair.train_index for pair in scan.pairs] == [40, 3]
