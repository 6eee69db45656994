"""Scores in the weights against the same in explicit weights."""

import numpy as np
import pytest

from estimators import errors
from estimators.linearized import descents, leave_out
from estimators.unique_information import accumulation, interactions, weights
from tests.estimators.linearized import problems

_RATE, _L2, _TIME = 0.02, 0.03, 120


@pytest.fixture(scope="module", params=["dual", "primal"])
def removed(request):
    problem = problems.make(outputs=2, width=30)
    descent = descents.GradientDescent(_RATE, _L2)
    groups = [np.array([place]) for place in range(9)] + [np.array([2, 5])]
    if request.param == "dual":
        return problem, leave_out.solve(problem.kernel, problem.residuals, descent, _TIME, groups=groups)
    return problem, leave_out.solve_primal(problem.jacobian, problem.residuals, descent, _TIME, groups=groups)


def _changes(problem, found):
    """Dw [G, P], by explicit training."""
    full = problems.descend(problem, _RATE, _L2, _TIME)
    return np.stack([problems.descend(problem, _RATE, _L2, _TIME, group) for group in found.groups]) - full


def test_isotropic(removed):
    problem, found = removed
    squared = np.sum(_changes(problem, found) ** 2, axis=1)
    score = weights.isotropic(found, sigma=0.1)
    np.testing.assert_allclose(score.squared_norms, squared, rtol=1e-8)
    np.testing.assert_allclose(score.nats, squared / 0.02, rtol=1e-8)
    assert (score.config["sigma"], score.config["time"], score.config["l2"]) == (0.1, _TIME, _L2)
    assert score.groups is found.groups


def test_langevin(removed):
    """1/2 dw^T Sigma^-1 dw with Sigma = learning_rate sigma^2 / (2 b) H^-1 formed."""
    problem, found = removed
    changes, jacobian = _changes(problem, found), problem.jacobian
    curvature = jacobian.T @ jacobian / 9 + _L2 * np.eye(30)
    covariance = _RATE * 0.3**2 / (2 * 4) * np.linalg.inv(curvature)
    expected = 0.5 * np.sum(changes * np.linalg.solve(covariance, changes.T).T, axis=1)
    score = weights.langevin(found, sigma=0.3, batch_size=4)
    np.testing.assert_allclose(score.nats, expected, rtol=1e-8)
    np.testing.assert_allclose(score.squared_norms, 9 * np.sum(changes @ curvature * changes, axis=1), rtol=1e-8)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_constants_that_cannot_be_are_refused(removed, value):
    found = removed[1]
    with pytest.raises(errors.InvalidArgumentError, match="sigma"):
        weights.isotropic(found, sigma=value)
    with pytest.raises(errors.InvalidArgumentError, match="batch_size"):
        weights.langevin(found, sigma=1.0, batch_size=value)


@pytest.mark.parametrize("value", [0.5, 2.5])
def test_batches_that_cannot_be_are_refused(removed, value):
    with pytest.raises(errors.InvalidArgumentError, match=f"batch_size {value}: must be a whole number from 1 up"):
        weights.langevin(removed[1], sigma=1.0, batch_size=value)


def test_pairs(removed):
    problem, found = removed
    singles, pair = found.groups[:9], [np.array([2, 5]), np.array([0, 1]), np.array([0, 8])]
    descent, form = found.descent, found.form
    solve, rows = (leave_out.solve, problem.kernel) if form == "dual" else (leave_out.solve_primal, problem.jacobian)
    alone = solve(rows, problem.residuals, descent, _TIME, groups=singles)
    both = solve(rows, problem.residuals, descent, _TIME, groups=pair)
    score = interactions.of(alone, both)
    one, two = _changes(problem, alone), _changes(problem, both)
    for place, (first, second) in enumerate(pair):
        separate = one[first] @ one[first] + one[second] @ one[second]
        rest = two[place] - one[first] - one[second]
        joint = two[place] @ two[place]
        assert score.joint[place] == pytest.approx(joint, rel=1e-8)
        assert score.separate[place] == pytest.approx(separate, rel=1e-8)
        assert score.excess[place] == pytest.approx(joint - separate, rel=1e-7)
        assert score.non_additivity[place] == pytest.approx(rest @ rest, rel=1e-7)
    np.testing.assert_array_equal(score.pairs, pair)


def test_pairs_that_cannot_be_compared_are_refused():
    problem = problems.make()
    descent = descents.GradientDescent(0.01)
    alone = leave_out.solve(problem.kernel, problem.residuals, descent, 5, groups=[[0], [1]])
    three = leave_out.solve(problem.kernel, problem.residuals, descent, 5, groups=[[0, 1, 2]])
    other = leave_out.solve(problem.kernel, problem.residuals, descent, 5, groups=[[0, 2]])
    for wrong in (three, other):
        with pytest.raises(errors.InvalidArgumentError, match="expected pairs"):
            interactions.of(alone, wrong)
    later = leave_out.solve(problem.kernel, problem.residuals, descent, 6, groups=[[0, 1]])
    with pytest.raises(errors.MismatchError, match="differ in time"):
        interactions.of(alone, later)
    other = problems.make(seed=1)
    for kernel, residuals, name in (
        (other.kernel, problem.residuals, "their kernels or features"),
        (problem.kernel, other.residuals, "their solutions with all examples"),
        (np.eye(10), np.ones(10), "their kernels or features"),
    ):
        both = leave_out.solve(kernel, residuals, descent, 5, groups=[[0, 1]])
        with pytest.raises(errors.MismatchError, match=f"differ in {name}"):
            interactions.of(alone, both)
    again = leave_out.solve(problem.kernel.copy(), problem.residuals, descent, 5, groups=[[0, 1]])
    assert np.isfinite(interactions.of(alone, again).joint).all()
    assert [list(pair) for pair in interactions.all_pairs([3, 1, 4])] == [[3, 1], [3, 4], [1, 4]]


def test_gradients_that_accumulate_are_what_coefficients_say():
    """d_i = J_i^T a_i without l2, each step written out."""
    problem = problems.make(outputs=2, width=30)
    jacobian = problem.jacobian.reshape(9, 2, 30)
    sums, moved = accumulation.GradientAccumulation(9, 30), np.zeros(30)
    for _ in range(25):
        residuals = problem.residuals + jacobian @ moved
        gradients = np.einsum("nkp,nk->np", jacobian, residuals)
        sums.add(gradients[:4], _RATE / 9, np.arange(4))
        sums.add(gradients[4:], _RATE / 9, np.arange(4, 9))
        moved = moved - _RATE * gradients.mean(axis=0)
    np.testing.assert_allclose(-sums.sums.sum(axis=0), moved, atol=1e-13)
    descent = descents.GradientDescent(_RATE)
    coefficients = leave_out.solve(problem.kernel, problem.residuals, descent, 25).full
    found = accumulation.of_linearised(problem.kernel, coefficients, 2)
    np.testing.assert_allclose(found, sums.squared_norms(), rtol=1e-9)
    assert sums.num_steps == 50


def test_an_example_that_is_drawn_twice_counts_twice():
    sums = accumulation.GradientAccumulation(3, 2)
    sums.add(np.array([[1.0, 0.0], [2.0, 1.0], [0.0, 4.0]]), 0.5, np.array([1, 1, 2]))
    np.testing.assert_array_equal(sums.sums, [[0, 0], [1.5, 0.5], [0, 2]])


@pytest.mark.parametrize("positions", [[0, 3], [-1, 0], [0.5, 1.0]])
def test_positions_that_cannot_be_are_refused(positions):
    with pytest.raises(errors.InvalidArgumentError, match="expected integers from 0 to 2"):
        accumulation.GradientAccumulation(3, 2).add(np.ones((2, 2)), 0.1, np.array(positions))


def test_gradients_that_do_not_fit_are_refused():
    sums = accumulation.GradientAccumulation(3, 2)
    with pytest.raises(errors.MismatchError, match="gradients of shape"):
        sums.add(np.ones((2, 2)), 0.1)
    with pytest.raises(errors.NotFiniteError, match="step 0"):
        sums.add(np.full((3, 2), np.nan), 0.1)
    with pytest.raises(errors.MismatchError, match="coefficients of shape"):
        accumulation.of_linearised(np.eye(4), np.ones(3), 2)
