"""Memorization and consistency against hand-computed cases, plain loops, exhaustive enumeration and coverage."""

import subprocess
import sys

import numpy as np
import pytest

from heldout.scoring import scores
from tests.reference import scores as reference
from zoo import errors, run_table


def make_table(ratios, mask, train, test=None):
    test = np.zeros((len(mask), 1), bool) if test is None else test
    return run_table.from_arrays("demo", np.arange(len(mask)), ratios, mask, train, test)


def random_table(seed, num_runs=40, num_train=21, ratio=0.5):
    generator = np.random.default_rng(seed)
    mask = generator.random((num_runs, num_train)) < ratio
    train = generator.random((num_runs, num_train)) < 0.6
    return mask, train, make_table(np.full(num_runs, ratio), mask, train)


def test_memorization_by_hand():
    mask = np.array([[1, 1], [1, 0], [1, 0], [0, 0], [0, 1]], bool)
    train = np.array([[1, 1], [1, 1], [0, 0], [1, 0], [0, 1]], bool)
    found = scores.memorization(make_table(np.full(5, 0.5), mask, train), 0.5)
    np.testing.assert_allclose(found.values, [2 / 3 - 1 / 2, 1 - 1 / 3])
    np.testing.assert_array_equal(found.num_in, [3, 2])
    np.testing.assert_array_equal(found.num_heldout, [2, 3])
    np.testing.assert_allclose(found.standard_error, [np.sqrt(2 / 27 + 1 / 8), np.sqrt(2 / 27)])
    assert found.num_in.dtype == np.int64
    assert found.values.dtype == np.float64


def test_memorization_equals_plain_loops():
    mask, train, table = random_table(0)
    found = scores.memorization(table, 0.5)
    values, errors_, num_in, num_heldout = reference.memorization(mask, train)
    np.testing.assert_allclose(found.values, values, rtol=1e-14)
    np.testing.assert_allclose(found.standard_error, errors_, rtol=1e-14)
    np.testing.assert_array_equal(found.num_in, num_in)
    np.testing.assert_array_equal(found.num_heldout, num_heldout)


@pytest.mark.parametrize("num_runs", [1, 254, 255, 256, 600])
def test_bit_sums_are_exact_beyond_one_pass(num_runs):
    bits = np.random.default_rng(num_runs).random((num_runs, 13)) < 0.9
    bits[:, 0] = True
    sums = scores.sum_bit_columns(np.packbits(bits, axis=1, bitorder="little"), 13)
    np.testing.assert_array_equal(sums, bits.sum(axis=0))
    assert sums[0] == num_runs


def test_never_and_always_held_out_are_nan_with_counts():
    mask, train, _ = random_table(1)
    mask[:, 3], mask[:, 7] = True, False
    table = make_table(np.full(len(mask), 0.5), mask, train)
    found = scores.memorization(table, 0.5)
    assert np.isnan(found.values[[3, 7]]).all()
    assert np.isnan(found.standard_error[[3, 7]]).all()
    assert np.isfinite(np.delete(found.values, [3, 7])).all()
    assert (found.num_in[3], found.num_heldout[3]) == (40, 0)
    assert (found.num_in[7], found.num_heldout[7]) == (0, 40)
    consistency = scores.consistency(table)
    assert np.isnan(consistency.profile[0, 3])
    assert np.isnan(consistency.score[3])
    assert np.isnan(consistency.score_standard_error[3])
    assert consistency.num_heldout[0, 3] == 0
    assert consistency.score[7] == train[:, 7].mean()


def test_standard_error_is_zero_at_extreme_rates():
    mask = np.array([[1], [1], [0], [0]], bool)
    found = scores.memorization(make_table(np.full(4, 0.5), mask, mask), 0.5)
    assert found.values[0] == 1
    assert found.standard_error[0] == 0


def two_ratio_table():
    mask_a, train_a, _ = random_table(2, num_runs=31, ratio=0.3)
    mask_b, train_b, _ = random_table(3, num_runs=44, ratio=0.7)
    ratios = np.repeat([0.3, 0.7], [31, 44])
    order = np.random.default_rng(4).permutation(75)
    mask, train = np.concatenate([mask_a, mask_b])[order], np.concatenate([train_a, train_b])[order]
    return (mask_a, mask_b), (train_a, train_b), make_table(ratios[order], mask, train)


def test_ratios_are_never_pooled():
    masks, trains, table = two_ratio_table()
    for ratio, mask, train in zip((0.3, 0.7), masks, trains, strict=True):
        np.testing.assert_allclose(
            scores.memorization(table, ratio).values, reference.memorization(mask, train)[0], rtol=1e-14
        )
    with pytest.raises(errors.InvalidValueError, match=r"0\.3.*0\.7"):
        scores.memorization(table, 0.5)


def test_consistency_equals_plain_loops():
    masks, trains, _ = two_ratio_table()
    # One example is held out at the second ratio only, one at neither.
    masks[0][:, 5] = True
    masks[0][:, 6], masks[1][:, 6] = True, True
    table = make_table(np.repeat([0.3, 0.7], [31, 44]), np.concatenate(masks), np.concatenate(trains))
    found = scores.consistency(table)
    profile, error, score, score_error = reference.consistency(masks, trains)
    np.testing.assert_allclose(found.profile, profile, rtol=1e-14)
    np.testing.assert_allclose(found.standard_error, error, rtol=1e-14)
    np.testing.assert_allclose(found.score, score, rtol=1e-14)
    np.testing.assert_allclose(found.score_standard_error, score_error, rtol=1e-14)
    np.testing.assert_array_equal(found.num_ratios, np.sum(~np.isnan(profile), axis=0))
    assert found.num_ratios[[5, 6, 7]].tolist() == [1, 0, 2]
    assert found.score[5] == found.profile[1, 5]
    assert np.isnan(found.score[6])
    np.testing.assert_array_equal(found.subset_ratios, [0.3, 0.7])


def test_consistency_of_chosen_ratios():
    _, _, table = two_ratio_table()
    found = scores.consistency(table, [0.7])
    np.testing.assert_array_equal(found.profile, scores.consistency(table).profile[1:])
    for bad in ([], [0.3, 0.3]):
        with pytest.raises(errors.InvalidValueError, match="subset_ratios"):
            scores.consistency(table, bad)
    with pytest.raises(errors.InvalidValueError, match=r"0\.4"):
        scores.consistency(table, [0.4])


def profile_of(ratios, accuracies, standard_errors):
    """A Consistency that has what the integral needs."""
    accuracies, standard_errors = np.array(accuracies, float), np.array(standard_errors, float)
    there = ~np.isnan(accuracies)
    zeros = np.zeros(accuracies.shape[1])
    return scores.Consistency(np.array(ratios), accuracies, there * 9, standard_errors, zeros, there.sum(axis=0), zeros)


def test_consistency_integral_by_hand():
    nan = np.nan
    found = scores.consistency_integral(
        profile_of(
            [0.1, 0.2, 0.6],
            [[0.2, nan, 0.5, nan, nan], [0.4, 0.4, nan, nan, 0.3], [0.8, 0.8, 1.0, nan, nan]],
            [[0.1, nan, 0.3, nan, nan], [0.2, 0.2, nan, nan, 0.1], [0.3, 0.3, 0.4, nan, nan]],
        )
    )
    np.testing.assert_allclose(found.values, [(0.1 * 0.3 + 0.4 * 0.6) / 0.5, 0.6, 0.75, nan, nan])
    errors_ = [np.hypot(np.hypot(0.05 * 0.1, 0.25 * 0.2), 0.2 * 0.3) / 0.5, np.hypot(0.1, 0.15), 0.25, nan, nan]
    np.testing.assert_allclose(found.standard_error, errors_)
    np.testing.assert_array_equal(found.num_ratios, [3, 2, 2, 0, 1])
    assert found.num_ratios.dtype == np.int64


def test_consistency_integral_equals_plain_loops():
    generator = np.random.default_rng(12)
    ratios, profile = np.sort(generator.random(7)), generator.random((7, 50))
    profile[generator.random((7, 50)) < 0.3] = np.nan
    found = scores.consistency_integral(profile_of(ratios, profile, profile / 10))
    for i in range(50):
        there = np.flatnonzero(~np.isnan(profile[:, i]))
        x, y = ratios[there], profile[there, i]
        span = x[-1] - x[0]
        assert found.values[i] == pytest.approx(np.trapezoid(y, x) / span, rel=1e-12)
        # The rule is linear: the weight of a ratio is what it gives for a profile that is 1 there and 0 elsewhere.
        weights = np.array([np.trapezoid(row, x) for row in np.eye(len(x))]) / span
        assert found.standard_error[i] == pytest.approx(np.sqrt(np.sum((weights * y / 10) ** 2)), rel=1e-12)
    assert ((found.values >= 0) & (found.values <= 1)).all()


def test_consistency_integral_needs_two_ratios():
    _, _, table = two_ratio_table()
    assert np.isnan(scores.consistency_integral(scores.consistency(table, [0.7])).values).all()
    both = scores.consistency(table)
    # Two ratios make a straight line, whose integral is their mean.
    np.testing.assert_allclose(scores.consistency_integral(both).values, both.score, rtol=1e-12)


def test_consistency_integral_intervals_cover():
    truths, masks, trains = [], [], []
    for seed in (10, 11, 12):
        _, p0, mask, train = simulate(seed, 300, 6000)
        truths.append(p0)
        masks.append(mask)
        trains.append(train)
    table = make_table(np.repeat([0.1, 0.5, 0.6], 300), np.concatenate(masks), np.concatenate(trains))
    found = scores.consistency_integral(scores.consistency(table))
    truth = np.trapezoid(np.stack(truths), [0.1, 0.5, 0.6], axis=0) / 0.5
    assert 0.93 <= share_covered(found.values, found.standard_error, truth) <= 0.97


TRAIN_X, TRAIN_LABEL = (0.0, 1.0, 2.1, 3.3, 4.6, 6.0), (0, 1, 0, 0, 1, 0)
TEST_X, TEST_LABEL = (0.4, 1.7, 3.9, 5.5), (0, 1, 1, 1)


def enumerate_and_sample(size, num_draws):
    """All subsets of one size, and a table of draws from them."""
    mask, train, test = reference.all_runs(size, TRAIN_X, TRAIN_LABEL, TEST_X, TEST_LABEL)
    rows = np.random.default_rng(100 + size).integers(len(mask), size=num_draws)
    table = make_table(np.full(num_draws, size / 6), mask[rows], train[rows], test[rows])
    return mask, train, test, table


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_estimates_agree_with_all_subsets(size):
    mask, train, _, table = enumerate_and_sample(size, 600)
    exact = reference.memorization(mask, train)[0]
    assert np.ptp(exact) > 0
    found = scores.memorization(table, size / 6)
    assert (np.abs(found.values - exact) <= 4 * found.standard_error + 1e-12).all()
    profile = reference.consistency([mask], [train])[0][0]
    consistency = scores.consistency(table)
    assert (np.abs(consistency.profile[0] - profile) <= 4 * consistency.standard_error[0] + 1e-12).all()


def simulate(seed, num_runs, num_train):
    """A zoo whose rates are known: p1 when trained on, p0 when held out, at least 100 runs a side."""
    generator = np.random.default_rng(seed)
    p1, p0 = generator.uniform(0.2, 0.8, (2, num_train))
    mask = generator.random((num_runs, num_train)) < 0.5
    train = generator.random((num_runs, num_train)) < np.where(mask, p1, p0)
    assert min(mask.sum(axis=0).min(), (~mask).sum(axis=0).min()) >= 100
    return p1, p0, mask, train


def share_covered(values, standard_error, truth):
    return np.mean(np.abs(values - truth) <= 1.96 * standard_error)


def test_memorization_intervals_cover():
    p1, p0, mask, train = simulate(7, 300, 6000)
    found = scores.memorization(make_table(np.full(300, 0.5), mask, train), 0.5)
    assert 0.93 <= share_covered(found.values, found.standard_error, p1 - p0) <= 0.97


def test_consistency_intervals_cover():
    truths, masks, trains = [], [], []
    for seed in (8, 9):
        _, p0, mask, train = simulate(seed, 300, 6000)
        truths.append(p0)
        masks.append(mask)
        trains.append(train)
    table = make_table(np.repeat([0.4, 0.6], 300), np.concatenate(masks), np.concatenate(trains))
    found = scores.consistency(table)
    assert 0.93 <= share_covered(found.profile, found.standard_error, np.stack(truths)) <= 0.97
    assert 0.93 <= share_covered(found.score, found.score_standard_error, np.mean(truths, axis=0)) <= 0.97


def test_programs_that_score_do_not_wait_for_statistics():
    program = (
        "import sys, scripts.compute_scores; print([m for m in ('scipy.stats', 'scipy.optimize') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_scores_import_is_light():
    program = "import sys; from heldout.scoring import scores, influence_matrix, bootstrap; "
    program += "print([m for m in ('tensorflow', 'pyarrow', 'pandas', 'scipy', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
