"""Training in closed form against training step by step in the weights."""

import dataclasses
import math

import numpy as np
import pytest

from estimators import errors
from estimators.linearized import descents, dynamics, spectra
from tests.estimators.linearized import problems


def _assert_follows(problem, solved, weights, time):
    """Everything that `Dynamics` gives, against weights w - w0."""
    scale = np.linalg.norm(weights)
    np.testing.assert_allclose(problem.jacobian.T @ solved.coefficients(time), weights, atol=1e-12 * scale)
    train = problem.initial + (problem.jacobian @ weights).reshape(problem.initial.shape)
    test = problem.test_initial + (problem.test_jacobian @ weights).reshape(problem.test_initial.shape)
    np.testing.assert_allclose(solved.train_predictions(problem.initial, time), train, atol=1e-12 * scale)
    np.testing.assert_allclose(solved.residuals(time), train - problem.labels, atol=1e-12 * scale)
    found = solved.test_predictions(problem.test_initial, problem.cross, time)
    np.testing.assert_allclose(found, test, atol=2e-11 * scale)
    assert solved.squared_distance(time) == pytest.approx(weights @ weights, rel=1e-11)


@pytest.mark.parametrize("name", problems.ALL)
@pytest.mark.parametrize("l2", [0.0, 0.05])
@pytest.mark.parametrize("reach", [0.8, 1.9])
def test_steps_equal_gradient_descent(name, l2, reach):
    problem = problems.ALL[name]()
    rate = problem.learning_rate(reach, l2, removed=0)
    solved = dynamics.Dynamics(problem.kernel, problem.residuals, descents.GradientDescent(rate, l2))
    for time in (0, 1, 2, 37, 250):
        _assert_follows(problem, solved, problems.descend(problem, rate, l2, time), time)


@pytest.mark.parametrize("name", problems.ALL)
@pytest.mark.parametrize("l2", [0.0, 0.05])
def test_flow_equals_the_matrix_exponential(name, l2):
    problem = problems.ALL[name]()
    solved = dynamics.Dynamics(problem.kernel, problem.residuals, descents.GradientDescent(0.1, l2, continuous=True))
    for time in (0.5, 40.0, 300.0):
        _assert_follows(problem, solved, problems.flow(problem, 0.1, l2, time), time)


@pytest.mark.parametrize("name", problems.ALL)
@pytest.mark.parametrize("l2", [0.0, 0.05])
def test_the_limit_is_the_optimum_of_least_norm(name, l2):
    problem = problems.ALL[name]()
    solved = dynamics.Dynamics(problem.kernel, problem.residuals, descents.GradientDescent(1.0, l2, continuous=True))
    _assert_follows(problem, solved, problems.optimum(problem, l2), math.inf)


def test_one_output_may_come_without_its_axis():
    problem = problems.make()
    descent = descents.GradientDescent(0.01)
    flat = dynamics.Dynamics(problem.kernel, problem.residuals[:, 0], descent)
    full = dynamics.Dynamics(problem.kernel, problem.residuals, descent)
    np.testing.assert_array_equal(flat.coefficients(5), full.coefficients(5))
    initial = problem.initial[:, 0]
    np.testing.assert_array_equal(flat.train_predictions(initial, 5), full.train_predictions(problem.initial, 5)[:, 0])


def test_a_spectrum_serves_again():
    problem = problems.make()
    spectrum, descent = spectra.decompose(problem.kernel), descents.GradientDescent(0.01)
    once = dynamics.Dynamics(spectrum, problem.residuals, descent)
    assert once.spectrum is spectrum
    anew = dynamics.Dynamics(problem.kernel, problem.residuals, descent)
    np.testing.assert_array_equal(once.coefficients(9), anew.coefficients(9))


def test_steps_that_diverge_are_refused_with_both_numbers():
    problem = problems.make()
    rate = problem.learning_rate(2.001, 0.1, removed=0)
    with pytest.raises(errors.InvalidArgumentError, match=r"2\.001, which must be below 2 \(largest eigenvalue"):
        dynamics.Dynamics(problem.kernel, problem.residuals, descents.GradientDescent(rate, 0.1))
    dynamics.Dynamics(problem.kernel, problem.residuals, descents.GradientDescent(rate, 0.1, continuous=True))
    lower = problem.learning_rate(1.999, 0.1, removed=0)
    dynamics.Dynamics(problem.kernel, problem.residuals, descents.GradientDescent(lower, 0.1))


@pytest.mark.parametrize(("time", "continuous"), [(-1, True), (math.nan, True), (2.5, False), (-math.inf, False)])
def test_times_that_cannot_be_are_refused(time, continuous):
    solved = dynamics.Dynamics(np.eye(2), np.ones(2), descents.GradientDescent(0.1, continuous=continuous))
    with pytest.raises(errors.InvalidArgumentError, match="time"):
        solved.coefficients(time)


@pytest.mark.parametrize(
    "settings", [{"learning_rate": 0.0}, {"learning_rate": math.inf}, {"l2": -1.0}, {"l2": math.nan}]
)
def test_settings_that_cannot_be_are_refused(settings):
    with pytest.raises(errors.InvalidArgumentError, match=next(iter(settings))):
        dataclasses.replace(descents.GradientDescent(0.1), **settings)


def test_rates_of_each_convention():
    descent = descents.GradientDescent(6.0, 0.5)
    assert descent.rates(4) == descents.Rates(1.5, 2.0)
    assert descent.without(4, 2, "mean") == descents.Rates(3.0, 1.0)
    assert descent.without(4, 2, "fixed") == descents.Rates(1.5, 2.0)
    assert descent.without(4, 2, "published") == descents.Rates(2.0, 2.0)
    with pytest.raises(errors.InvalidArgumentError, match="convention 'sum'"):
        descent.without(4, 1, "sum")
    with pytest.raises(errors.InvalidArgumentError, match="4 of 4 examples"):
        descent.without(4, 4, "mean")


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (np.ones((2, 3)), "shape"),
        (np.array([[1.0, np.nan], [np.nan, 1.0]]), "not finite"),
        (np.array([[1.0, 0.5], [0.0, 1.0]]), "not symmetric"),
        (np.array([[1.0, 2.0], [2.0, 1.0]]), "eigenvalue -1"),
    ],
)
def test_what_is_no_kernel_is_refused(kernel, message):
    with pytest.raises(errors.InvalidArgumentError, match=message):
        spectra.decompose(kernel)


def test_round_off_below_zero_is_clipped_and_said():
    vectors = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0]
    spectrum = spectra.decompose(vectors @ np.diag([-1e-15, 0, 1, 2, 3]) @ vectors.T)
    assert spectrum.eigenvalues.min() == 0
    assert -1e-14 < spectrum.clipped < 0
    assert spectrum.rank == 3
    assert spectrum.largest == pytest.approx(3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_tolerance_is_that_of_the_kernel_as_given(dtype):
    """A float32 kernel that is singular but for its rounding still has its rank."""
    features = np.random.default_rng(0).normal(size=(40, 6))
    spectrum = spectra.decompose((features @ features.T).astype(dtype))
    assert spectrum.rank == 6
    assert spectrum.eigenvectors.dtype == spectrum.eigenvalues.dtype == np.float64


def test_a_kernel_may_be_less_accurate_than_its_dtype():
    """Computed in float32, stored in float64."""
    features = np.random.default_rng(0).normal(size=(40, 6))
    noise = 1e-7 * np.random.default_rng(1).normal(size=(40, 40))
    kernel = features @ features.T + noise + noise.T
    with pytest.raises(errors.InvalidArgumentError, match="accuracy of its entries"):
        spectra.decompose(kernel)
    with pytest.raises(errors.InvalidArgumentError, match="not symmetric"):
        spectra.decompose(kernel + 1e4 * np.triu(noise))
    spectrum = spectra.decompose(kernel, accuracy=1.2e-7)
    assert spectrum.rank == 6
    assert spectrum.clipped < 0


def test_other_shapes_are_refused():
    problem = problems.make()
    descent = descents.GradientDescent(0.01)
    with pytest.raises(errors.MismatchError, match="beside a kernel of 9 rows"):
        dynamics.Dynamics(problem.kernel, problem.residuals[:-1], descent)
    with pytest.raises(errors.InvalidArgumentError, match="not finite"):
        dynamics.Dynamics(problem.kernel, problem.residuals * np.nan, descent)
    solved = dynamics.Dynamics(problem.kernel, problem.residuals, descent)
    with pytest.raises(errors.MismatchError, match="cross kernel of shape"):
        solved.test_predictions(problem.test_initial, problem.cross[:-1], 3)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_cross_kernels_and_initial_predictions_that_are_no_numbers_are_refused(value):
    problem = problems.make()
    solved = dynamics.Dynamics(problem.kernel, problem.residuals, descents.GradientDescent(0.01))
    cross, initial = problem.cross.copy(), problem.test_initial.copy()
    cross[1, 2] = initial[0, 0] = value
    for wrong in ((problem.test_initial, cross), (initial, problem.cross)):
        with pytest.raises(errors.InvalidArgumentError, match="cross kernel or initial test predictions are not fin"):
            solved.test_predictions(*wrong, 3)
