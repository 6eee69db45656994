"""The lasso on bits: against a closed form, every pattern of signs, and scikit-learn."""

import itertools

import numpy as np
import pytest
import sklearn.linear_model

from heldout.scoring import datamodel_path
from tests.reference import lasso
from zoo import packed_bits


def design(mask):
    return datamodel_path.design(packed_bits.pack(mask), mask.shape[1])


def problem(num_runs, num_train, seed, ratio=0.6, num_strong=5):
    """Subsets of one size, and an output that a few examples raise or lower."""
    generator = np.random.default_rng(seed)
    size = round(ratio * num_train)
    mask = np.stack([np.isin(np.arange(num_train), generator.permutation(num_train)[:size]) for _ in range(num_runs)])
    effect = np.zeros(num_train)
    effect[generator.permutation(num_train)[:num_strong]] = generator.normal(size=num_strong)
    return mask, mask @ effect + 0.5 * generator.normal(size=num_runs) + 3


def path(mask, output, num_penalties=20, ratio=0.02, tolerance=1e-12, **options):
    masks = design(mask)
    penalties = datamodel_path.penalties(datamodel_path.largest_penalty(masks, output), num_penalties, ratio)
    return penalties, datamodel_path.fit_path(masks, output, penalties, tolerance=tolerance, **options)


def dense(fit, num_train):
    """Weights [L, N]."""
    weights = np.zeros((len(fit.weight), num_train))
    for row, index, weight in zip(weights, fit.train_index, fit.weight, strict=True):
        row[index] = weight
    return weights


def scikit(mask, output, penalties, tolerance=1e-12):
    """Weights [L, N] of scikit-learn's path."""
    columns = np.asfortranarray(mask - mask.mean(axis=0))
    _, weights, _ = sklearn.linear_model.lasso_path(
        columns, output - output.mean(), alphas=penalties, tol=tolerance, max_iter=100_000
    )
    return weights.T


def test_over_all_subsets_a_weight_is_the_difference_of_means_moved_towards_0():
    mask = np.array(list(itertools.product((False, True), repeat=6)))
    output = np.random.default_rng(0).normal(size=len(mask))
    slopes = np.array([output[column].mean() - output[~column].mean() for column in mask.T])
    penalties, fit = path(mask, output)
    # Every column is right in half of the runs: p (1 - p) = 1 / 4.
    expected = np.sign(slopes) * np.maximum(np.abs(slopes) - 4 * penalties[:, np.newaxis], 0)
    np.testing.assert_allclose(dense(fit, 6), expected, atol=1e-12)
    np.testing.assert_allclose(fit.intercept, output.mean() - expected.sum(axis=1) / 2, atol=1e-12)
    assert np.count_nonzero(expected[-1]) == 6


@pytest.mark.parametrize("seed", range(4))
def test_no_pattern_of_signs_does_better(seed):
    generator = np.random.default_rng(seed)
    mask = generator.random((14, 5)) < 0.6  # of subsets of one size the columns add up to a constant, and minima join
    output = mask @ generator.normal(size=5) + 0.3 * generator.normal(size=14)
    penalties, fit = path(mask, output, num_penalties=5, ratio=0.05)
    for row, weight in enumerate(dense(fit, 5)):
        intercept, expected = lasso.by_enumeration(mask, output, penalties[row])
        np.testing.assert_allclose(weight, expected, atol=1e-6)
        assert fit.intercept[row] == pytest.approx(intercept, abs=1e-6)


@pytest.mark.parametrize(("num_runs", "num_train"), [(30, 12), (63, 40), (64, 81), (130, 200), (200, 65)])
def test_weights_and_objective_are_those_of_scikit_learn(num_runs, num_train):
    mask, output = problem(num_runs, num_train, seed=num_runs)
    penalties, fit = path(mask, output)
    weights, expected = dense(fit, num_train), scikit(mask, output, penalties)
    np.testing.assert_allclose(weights, expected, atol=1e-5)
    for row, penalty in enumerate(penalties):
        values = [
            lasso.objective(mask, output, output.mean() - mask.mean(axis=0) @ weight, weight, penalty)
            for weight in (weights[row], expected[row])
        ]
        # Either is at most its gap, over n, above the minimum.
        assert values[0] == pytest.approx(values[1], abs=1e-12 * np.var(output))
    assert np.max(fit.relative_gap) <= 1e-12


@pytest.mark.parametrize("tolerance", [1e-3, 1e-6, 1e-9])
def test_the_gap_is_what_it_is_said_to_be(tolerance):
    mask, output = problem(90, 150, seed=1)
    penalties, fit = path(mask, output, tolerance=tolerance)
    weights = dense(fit, 150)
    gaps = [lasso.relative_gap(mask, output, w, penalty) for w, penalty in zip(weights, penalties, strict=True)]
    np.testing.assert_allclose(fit.relative_gap, gaps, rtol=1e-6, atol=1e-14)
    assert np.max(gaps) <= tolerance


def test_runs_outside_of_the_fit_are_predicted_and_nothing_else():
    mask, output = problem(100, 30, seed=2)
    in_fit = np.random.default_rng(3).random(100) < 0.7
    changed = np.where(in_fit, output, 1e6)
    penalties = np.geomspace(0.1, 0.002, 10)
    fit = datamodel_path.fit_path(design(mask), changed, penalties, in_fit=in_fit, tolerance=1e-12)
    alone = datamodel_path.fit_path(design(mask[in_fit]), output[in_fit], penalties, tolerance=1e-12)
    np.testing.assert_allclose(dense(fit, 30), dense(alone, 30), atol=1e-10)
    np.testing.assert_allclose(fit.intercept, alone.intercept, atol=1e-9)
    expected = fit.intercept[:, np.newaxis] + dense(fit, 30) @ mask.T
    np.testing.assert_allclose(fit.prediction, expected, atol=1e-12)


def test_examples_that_are_in_all_runs_or_none_have_no_weight():
    mask, output = problem(80, 20, seed=4)
    mask[:, 3], mask[:, 17] = True, False
    penalties, fit = path(mask, output)
    weights = dense(fit, 20)
    assert not weights[:, [3, 17]].any()
    # From far away the strong rule keeps every example that may have a weight.
    late = datamodel_path.fit_path(design(mask), output, penalties[-1:], tolerance=1e-12)
    np.testing.assert_allclose(dense(late, 20)[0], weights[-1], atol=1e-6)
    others = np.delete(np.arange(20), [3, 17])
    np.testing.assert_allclose(weights[:, others], scikit(mask[:, others], output, penalties), atol=1e-6)


def test_of_equal_columns_the_sum_of_weights_counts():
    mask, output = problem(80, 20, seed=5)
    mask[:, 11] = mask[:, 4]
    output = output + mask[:, 4]
    penalties, fit = path(mask, output)
    weights, expected = dense(fit, 20), scikit(mask, output, penalties)
    np.testing.assert_allclose(weights @ mask.T, expected @ mask.T, atol=1e-5)


def test_at_the_largest_penalty_all_weights_are_0_and_just_below_it_one_is_not():
    mask, output = problem(50, 40, seed=6)
    largest = datamodel_path.largest_penalty(design(mask), output)
    columns = mask - mask.mean(axis=0)
    assert largest == pytest.approx(np.max(np.abs(columns.T @ (output - output.mean()))) / 50, rel=1e-12)
    fit = datamodel_path.fit_path(design(mask), output, np.array([largest, 0.999 * largest]), tolerance=1e-13)
    assert [len(weight) for weight in fit.weight] == [0, 1]
    assert fit.intercept[0] == pytest.approx(output.mean())


def test_the_path_can_begin_anywhere_and_go_far_below_the_number_of_runs():
    # More members enter on the way than a working set may hold, so that it has to be thinned.
    mask, output = problem(40, 600, seed=7)
    penalties, fit = path(mask, output, num_penalties=60, ratio=1e-3, tolerance=1e-9)
    assert np.max(fit.relative_gap) <= 1e-9
    assert len(fit.weight[-1]) <= 40
    late = datamodel_path.fit_path(design(mask), output, penalties[-1:], tolerance=1e-9)
    assert late.relative_gap[0] <= 1e-9
    np.testing.assert_allclose(late.prediction[-1], fit.prediction[-1], atol=1e-4 * np.ptp(output))


def test_an_output_that_does_not_vary_is_its_mean():
    mask, _ = problem(40, 20, seed=8)
    fit = datamodel_path.fit_path(design(mask), np.full(40, 0.3), np.array([0.1]), tolerance=1e-6)
    assert len(fit.weight[0]) == 0
    assert fit.relative_gap[0] <= 1e-6
    np.testing.assert_allclose(fit.prediction, 0.3)


def test_what_cannot_be_reached_is_told():
    mask, output = problem(40, 60, seed=9)
    _, fit = path(mask, output, tolerance=0.0, num_penalties=3)
    assert np.all(fit.relative_gap < 1e-13)
    assert np.all(fit.relative_gap > -1e-14)


def test_an_empty_path_is_empty():
    mask, output = problem(40, 60, seed=9)
    fit = datamodel_path.fit_path(design(mask), output, np.zeros(0), tolerance=1e-6)
    assert fit.weight == ()
    assert fit.prediction.shape == (0, 40)
