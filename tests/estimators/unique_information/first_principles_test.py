"""What must hold of unique information whatever the problem."""

import math

import numpy as np
import pytest

from estimators.linearized import descents, dynamics, leave_out
from estimators.unique_information import predictions, weights
from tests.estimators.linearized import problems

_LIMIT = descents.GradientDescent(1.0, continuous=True)


def _information(problem, descent, time, **options):
    removed = leave_out.solve(problem.kernel, problem.residuals, descent, time, **options)
    return weights.isotropic(removed, sigma=1.0).nats


@pytest.mark.parametrize("convention", descents.CONVENTIONS)
@pytest.mark.parametrize("outputs", [1, 3])
def test_a_duplicate_with_an_equal_label_is_worth_nothing_in_the_end(convention, outputs):
    problem = problems.make(outputs=outputs, width=40)
    # Example 1 becomes what example 0 is; the network interpolates.
    problem.initial[1], problem.labels[1] = problem.initial[0], problem.labels[0]
    descent = descents.GradientDescent(0.5, continuous=True)
    scores = [_information(problem, descent, time, convention=convention) for time in (1e2, 1e6, 1e9, math.inf)]
    size = scores[-1][2:].min()
    assert all(scores[0][:2] > 1e-6 * size)
    assert all(scores[1][:2] < scores[0][:2])
    assert all(scores[2][:2] < 1e-10 * size)
    assert all(scores[3][:2] < 1e-18 * size)


def test_an_example_without_final_residual_is_worth_nothing():
    """Under "fixed"; under any convention without l2."""
    for l2, conventions in ((0.1, ["fixed"]), (0.0, descents.CONVENTIONS)):
        problem = problems.make(12, 2, 7, seed=2)  # cannot interpolate
        descent = descents.GradientDescent(1.0, l2, continuous=True)
        others = problems.optimum(problem, l2, [4], "fixed")
        # Its label is what the others predict of it.
        problem.labels[4] = problem.initial[4] + problem.jacobian[8:10] @ others
        final = dynamics.Dynamics(problem.kernel, problem.residuals, descent).residuals(math.inf)
        np.testing.assert_allclose(final[4], 0, atol=1e-12)
        for convention in conventions:
            scores = _information(problem, descent, math.inf, convention=convention)
            assert scores[4] < 1e-20 * np.median(scores)
    scores = _information(problem, descents.GradientDescent(1.0, 0.1, continuous=True), math.inf, convention="mean")
    assert scores[4] > 1e-8 * np.median(scores)


def test_after_one_step_changes_are_differences_from_the_mean_gradient():
    """dw_i = learning_rate (g_i - mean g) / (n - 1)."""
    problem = problems.make(outputs=2, width=30)
    gradients = np.einsum("nkp,nk->np", problem.jacobian.reshape(9, 2, 30), problem.residuals)
    expected = 0.01 * (gradients - gradients.mean(axis=0)) / 8
    descent = descents.GradientDescent(0.01, 0.3)
    removed = leave_out.solve(problem.kernel, problem.residuals, descent, 1)
    np.testing.assert_allclose((removed.without - removed.full) @ problem.jacobian, expected, atol=1e-15)
    np.testing.assert_allclose(
        weights.isotropic(removed, sigma=1.0).squared_norms, np.sum(expected**2, axis=1), rtol=1e-10
    )


def test_press_and_cook():
    """Least squares: residual_i / (1 - h_i) without example i (Allen), and D_i = |df|^2 / (p s^2) (Cook)."""
    problem = problems.make(15, 1, 4, seed=9, duplicate=False)
    jacobian = problem.jacobian
    removed = leave_out.solve(problem.kernel, problem.residuals, _LIMIT, math.inf)
    final = dynamics.Dynamics(problem.kernel, problem.residuals, _LIMIT).residuals(math.inf)[:, 0]
    leverage = np.diag(jacobian @ np.linalg.solve(jacobian.T @ jacobian, jacobian.T))
    own = np.concatenate(predictions.self_effects(removed))[:, 0]
    np.testing.assert_allclose(final + own, final / (1 - leverage), rtol=1e-10)
    variance = final @ final / (15 - 4)
    cook = final**2 * leverage / (4 * variance * (1 - leverage) ** 2)
    stability = predictions.train_prediction_stability(removed, sigma=1.0).squared_norms
    np.testing.assert_allclose(15 * stability / (4 * variance), cook, rtol=1e-9)


@pytest.mark.parametrize("time", [30, 300, math.inf])
def test_primal_and_dual_scores_agree_with_explicit_weights(time):
    problem = problems.make(outputs=2, width=25)
    rate, l2 = problem.learning_rate(0.8, 0.02), 0.02
    descent = descents.GradientDescent(rate, l2)
    truth = (
        (lambda g: problems.optimum(problem, l2, g))
        if math.isinf(time)
        else (lambda g: problems.descend(problem, rate, l2, time, g))
    )
    expected = [0.5 * np.sum((truth([place]) - truth([])) ** 2) for place in range(9)]
    np.testing.assert_allclose(_information(problem, descent, time), expected, rtol=1e-7)
    primal = leave_out.solve_primal(problem.jacobian, problem.residuals, descent, time)
    np.testing.assert_allclose(weights.isotropic(primal, sigma=1.0).nats, expected, rtol=1e-7)


def test_a_mislabelled_example_is_informative():
    """One label far from what its neighbours say has the largest score."""
    rng = np.random.default_rng(10)
    inputs = rng.normal(size=(40, 3))
    labels = inputs @ [1.0, -2.0, 0.5]
    labels[17] += 5.0
    problem = problems.Problem(inputs, inputs, np.zeros((40, 1)), labels[:, None], np.zeros((40, 1)))
    descent = descents.GradientDescent(0.1)
    assert np.argmax(_information(problem, descent, 200)) == 17
