"""Deletions where round-off counts: kernels of float32, little l2, ranks; against features of float64."""

import math

import numpy as np
import pytest

from estimators.linearized import descents, leave_out, spectra
from tests.estimators.linearized import leave_out_test, problems


@pytest.mark.parametrize("form", ["dual", "primal"])
@pytest.mark.parametrize("l2", [1e-16, 1e-14, 1e-13, 1e-12, 1e-10, 1e-6])
@pytest.mark.parametrize("name", problems.ALL)
def test_little_l2_loses_no_digits(form, l2, name):
    problem = problems.ALL[name]()
    descent = descents.GradientDescent(0.1, l2, continuous=True)
    found = leave_out_test.solved(problem, form, descent, math.inf, groups=leave_out_test.GROUPS)

    def truth(group):
        return _ridge(problem, l2 * (9 if name != "rank-deficient" else 12) - l2 * len(group), group)

    expected = np.stack([truth(())] + [truth(group) for group in found.groups])
    np.testing.assert_allclose(leave_out_test.weights(problem, found), expected, atol=1e-4 * np.abs(expected).max())
    assert found.check.solution_error < 1e-4


def _ridge(problem, lam, removed):
    """The minimum with l2 by singular values of what is left, which squares nothing."""
    keep = problem.rows(removed)
    left, values, right = np.linalg.svd(problem.jacobian[keep], full_matrices=False)
    known = values > 1e-12 * values[0]
    along = np.where(known, values / np.where(known, values**2 + lam, 1.0), 0.0)
    return -right.T @ (along * (left.T @ problem.residuals.ravel()[keep]))


def _float32(num, width, least, seed=1):
    """Features with a common part and their kernels, rounded and exact; residuals."""
    rng = np.random.default_rng(seed)
    features = (rng.normal(size=(num, width)) * np.geomspace(1, least, width) + 1).astype(np.float32)
    exact = features.astype(np.float64)
    return exact, features @ features.T, rng.normal(size=num)


def test_a_float32_kernel_of_full_rank_keeps_it():
    """Of condition 6e4; its eigenvalues are off by 1e-9 of the largest, not by N roundings."""
    features, kernel, residuals = _float32(200, 400, 0.05)
    descent = descents.GradientDescent(0.1, continuous=True)
    found = leave_out.solve(kernel, residuals, descent, math.inf, groups=[[0], [7, 8]], num_checked=0)
    assert found.spectrum.rank == 200
    exact = leave_out.solve(features @ features.T, residuals, descent, math.inf, groups=[[0], [7, 8]], num_checked=0)
    np.testing.assert_allclose(found.squared_weight_changes(), exact.squared_weight_changes(), rtol=1e-2)


@pytest.mark.parametrize(("num", "width"), [(60, 30), (300, 150)])
@pytest.mark.parametrize("share", [1e-4, 1e-7, 1e-9])
@pytest.mark.parametrize("time", [10**6, math.inf])
def test_round_off_of_a_singular_float32_kernel_moves_no_weights(num, width, share, time):
    """Scores were 0, or thousands of times too large: da^T K da with the round-off of K, of either sign."""
    features, kernel, residuals = _float32(num, width, 1.0)
    largest = np.linalg.eigvalsh(features.T @ features)[-1]
    descent = descents.GradientDescent(0.5 * num / largest, share * largest / num)
    found = leave_out.solve(kernel, residuals, descent, time)
    exact = leave_out.solve_primal(features, residuals, descent, time)
    assert (found.spectrum.rank, exact.spectrum.rank) == (width, width)
    expected = exact.squared_weight_changes()
    np.testing.assert_allclose(found.squared_weight_changes(), expected, rtol=2e-2, atol=0.04 * expected.mean())
    assert found.check.solution_error < 5e-3


def test_how_far_round_off_was_trained_is_said():
    _, kernel, residuals = _float32(60, 30, 1.0)
    for l2, time in ((0.0, 100), (0.0, 10**9), (1e-3, 10**9), (0.0, math.inf), (1e-3, math.inf)):
        descent = descents.GradientDescent(60 / np.linalg.eigvalsh(kernel)[-1], l2)
        found = leave_out.solve(kernel, residuals, descent, time, groups=[[0]], num_checked=0)
        lengths = [descent.learning_rate / 60 * time] + ([1 / (60 * l2)] if l2 else [])
        expected = 0.0 if l2 == 0 and math.isinf(time) else found.spectrum.tolerance * min(lengths)
        assert found.round_off_reach == pytest.approx(expected)


def test_a_kernel_of_float32_stored_in_float64():
    problem = problems.make(40, 1, 6, seed=13)
    noise = 1e-7 * np.random.default_rng(1).normal(size=(40, 40))
    kernel = problem.kernel + noise + noise.T
    spectrum, descent = spectra.decompose(kernel, accuracy=1.2e-7), descents.GradientDescent(0.1, continuous=True)
    for time in (50, math.inf):
        found = leave_out.solve(kernel, problem.residuals, descent, time, spectrum=spectrum)
        exact = leave_out.solve(problem.kernel, problem.residuals, descent, time)
        moved, expected = ((one.without - one.full) @ problem.jacobian for one in (found, exact))
        np.testing.assert_allclose(moved, expected, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("num", "width"), [(9, 4), (60, 30), (300, 150)])
@pytest.mark.parametrize("mean", [0.0, 10.0])
def test_ranks_are_found_whatever_is_common_to_all(dtype, num, width, mean):
    features = (np.random.default_rng(0).normal(size=(num, width)) + mean).astype(dtype)
    spectrum = spectra.decompose(features @ features.T)
    assert spectrum.rank == spectrum.is_known.sum() == width
    assert spectrum.tolerance < 1e-5 * spectrum.largest


def test_errors_larger_than_expected_show_below_zero():
    features = np.random.default_rng(0).normal(size=(40, 6))
    noise = 1e-6 * np.random.default_rng(1).normal(size=(40, 40))
    spectrum = spectra.decompose(features @ features.T + noise + noise.T, accuracy=3e-8)
    assert spectrum.rank == 6
    assert spectrum.tolerance == -2 * spectrum.clipped
