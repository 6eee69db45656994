"""Subset influence against the plain formula, loops, exhaustive enumeration and coverage."""

import numpy as np
import pytest

from heldout.scoring import influence_matrix, joint_counts
from tests.reference import scores as reference
from zoo import errors, run_table


def make_table(mask, test, ratio=0.5):
    num_runs = len(mask)
    return run_table.from_arrays(
        "demo", np.arange(num_runs), np.full(num_runs, ratio), mask, np.zeros(mask.shape, bool), test
    )


def random_arrays(seed=0, num_runs=53, num_train=37, num_test=29, ratio=0.5):
    generator = np.random.default_rng(seed)
    mask = generator.random((num_runs, num_train)) < ratio
    # One example that every run trained on and one that none did.
    mask[:, 3], mask[:, 30] = True, False
    return mask, generator.random((num_runs, num_test)) < generator.uniform(0, 1, num_test)


def plain_formula(mask, test):
    """Feldman & Zhang's estimator as two float32 products."""
    inside, outside, correct = mask.T.astype(np.float32), (~mask).T.astype(np.float32), test.astype(np.float32)
    with np.errstate(invalid="ignore"):
        return inside @ correct / inside.sum(1, keepdims=True) - outside @ correct / outside.sum(1, keepdims=True)


def test_by_hand():
    mask = np.array([[1], [1], [1], [0], [0]], bool)
    test = np.array([[1, 0], [1, 0], [0, 0], [1, 1], [0, 1]], bool)
    found = influence_matrix.subset_influence(make_table(mask, test), 0.5)
    np.testing.assert_allclose(found.values, [[2 / 3 - 1 / 2, -1]], rtol=1e-6)
    np.testing.assert_allclose(found.standard_error, [[np.sqrt(2 / 27 + 1 / 8), 0]], rtol=1e-6)
    assert (found.num_in[0], found.num_heldout[0]) == (3, 2)


def test_equals_loops_and_plain_formula():
    mask, test = random_arrays()
    found = influence_matrix.subset_influence(make_table(mask, test), 0.5)
    values, standard_error = reference.subset_influence(mask, test)
    np.testing.assert_allclose(found.values, values, atol=3e-7)
    np.testing.assert_allclose(found.standard_error, standard_error, atol=3e-7)
    np.testing.assert_array_equal(found.values, plain_formula(mask, test))
    assert np.isnan(found.values[[3, 30]]).all()
    assert np.isnan(found.standard_error[[3, 30]]).all()
    assert np.isfinite(np.delete(found.values, [3, 30], axis=0)).all()
    np.testing.assert_array_equal(found.num_in, mask.sum(axis=0))
    np.testing.assert_array_equal(found.num_heldout, (~mask).sum(axis=0))


def test_blocks_are_the_matrix(monkeypatch):
    mask, test = random_arrays()
    table = make_table(mask, test)
    dense = influence_matrix.subset_influence(table, 0.5)
    monkeypatch.setattr(influence_matrix, "_BLOCK_ROWS", 8)
    blocks = list(influence_matrix.subset_influence_blocks(table, 0.5))
    assert [(block.start, block.stop) for block in blocks] == [(0, 8), (8, 16), (16, 24), (24, 32), (32, 37)]
    np.testing.assert_array_equal(np.concatenate([block.values for block in blocks]), dense.values)
    np.testing.assert_array_equal(np.concatenate([block.standard_error for block in blocks]), dense.standard_error)


def test_ratios_are_never_pooled():
    mask, test = random_arrays(num_runs=60)
    ratios = np.repeat([0.5, 0.7], 30)
    table = run_table.from_arrays("demo", np.arange(60), ratios, mask, np.zeros(mask.shape, bool), test)
    for ratio, rows in ((0.5, slice(30)), (0.7, slice(30, 60))):
        found = influence_matrix.subset_influence(table, ratio)
        np.testing.assert_array_equal(found.values, plain_formula(mask[rows], test[rows]))
    with pytest.raises(errors.InvalidValueError, match=r"0\.6"):
        influence_matrix.subset_influence(table, 0.6)
    with pytest.raises(errors.InvalidValueError, match=r"0\.6"):
        next(influence_matrix.subset_influence_blocks(table, 0.6))


def test_too_many_runs_are_refused(monkeypatch):
    monkeypatch.setattr(joint_counts, "MAX_RUNS", 52)
    with pytest.raises(errors.InvalidValueError, match="53 runs at one ratio, expected at most 52"):
        influence_matrix.subset_influence(make_table(*random_arrays()), 0.5)


@pytest.mark.parametrize(("total", "num_in"), [(50, 1), (50, 49), (50, 20), (1 << 20, 1 << 19), (1 << 20, 3)])
def test_counts_come_back_from_values(total, num_in):
    """Every count that can occur, also at the largest number of runs that is allowed."""
    generator = np.random.default_rng(total + num_in)
    num_right = np.sort(np.append(generator.integers(0, total + 1, 400), [0, total]))
    low, high = np.maximum(0, num_right - (total - num_in)), np.minimum(num_in, num_right)
    for counts in (low, high, (low + high) // 2, generator.integers(low, high + 1)):
        sides = influence_matrix.Sides(np.array([num_in]), np.array([total - num_in]), num_right.astype(np.float32))
        values = counts[None].astype(np.float32)
        influence_matrix.fill_values(values, sides, 0, values)
        found = influence_matrix.counts_from_values(values[0], num_in, total - num_in, sides.num_right)
        np.testing.assert_array_equal(found, counts)


TRAIN_X, TRAIN_LABEL = (0.0, 1.0, 2.1, 3.3, 4.6, 6.0), (0, 1, 0, 0, 1, 0)
TEST_X, TEST_LABEL = (0.4, 1.7, 3.9, 5.5), (0, 1, 1, 1)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_estimates_agree_with_all_subsets(size):
    mask, _, test = reference.all_runs(size, TRAIN_X, TRAIN_LABEL, TEST_X, TEST_LABEL)
    exact = reference.subset_influence(mask, test)[0]
    assert np.ptp(exact) > 0
    rows = np.random.default_rng(200 + size).integers(len(mask), size=600)
    found = influence_matrix.subset_influence(make_table(mask[rows], test[rows]), 0.5)
    assert (np.abs(found.values - exact) <= 4 * found.standard_error + 1e-6).all()


def test_intervals_cover():
    """True rates: p1 for the runs that trained on the one example, p0 for the others, on each of 6000 test examples."""
    generator = np.random.default_rng(11)
    p1, p0 = generator.uniform(0.2, 0.8, (2, 6000))
    mask = generator.random((300, 1)) < 0.5
    assert 100 <= mask.sum() <= 200
    test = generator.random((300, 6000)) < np.where(mask, p1, p0)
    found = influence_matrix.subset_influence(make_table(mask, test), 0.5)
    covered = np.abs(found.values[0] - (p1 - p0)) <= 1.96 * found.standard_error[0]
    assert 0.93 <= covered.mean() <= 0.97


def test_standard_errors_follow_from_the_values():
    mask, test = random_arrays()
    table = make_table(mask, test)
    dense, sides = influence_matrix.subset_influence(table, 0.5), influence_matrix.sides_of(table)
    rows, columns = np.array([[0], [3], [17], [36]]), np.array([2, 28, 5])
    found = influence_matrix.standard_errors(
        dense.values[rows, columns], sides.num_in[rows], sides.num_heldout[rows], sides.num_right[columns]
    )
    np.testing.assert_allclose(found, dense.standard_error[rows, columns], rtol=1e-6)
    assert np.isnan(found[1]).all()
