"""The squared-error problem of cross-entropy against derivatives of the loss and Newton's method in the weights."""

import math

import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from estimators import errors
from estimators.linearized import descents, dynamics, gauss_newton, leave_out
from tests.estimators.linearized import problems


def _labels(num, outputs):
    rng = np.random.default_rng(3)
    return rng.integers(0, outputs, num) if outputs > 1 else rng.uniform(size=num).round(1)


def _mean_loss(predictions, labels):
    """By TensorFlow."""
    if predictions.shape[1] == 1:
        losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=labels[:, None], logits=predictions)
    else:
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=predictions)
    return tf.reduce_mean(losses)


def _derivatives(predictions, labels):
    """Gradient [N] and Hessian [N, N] of the sum of losses by the predictions, by nested differentiation."""
    flat = tf.Variable(predictions.ravel())
    with tf.GradientTape(persistent=True) as outer:
        with tf.GradientTape() as inner:
            loss = _mean_loss(tf.reshape(flat, predictions.shape), labels) * len(predictions)
        slopes = inner.gradient(loss, flat)
    return slopes.numpy(), outer.jacobian(slopes, flat, experimental_use_pfor=False).numpy()


@pytest.mark.parametrize("outputs", [1, 2, 4])
def test_steps_follow_the_quadratic_model_in_the_weights(outputs):
    """Gradient descent on g . J w + 1/2 w^T J^T H J w, written out."""
    problem = problems.make(outputs=outputs, width=30)
    labels = _labels(9, outputs)
    slopes, curvatures = _derivatives(problem.initial, labels)
    jacobian, l2 = problem.jacobian, 0.01
    found = gauss_newton.make(problem.kernel, problem.initial, labels)
    rate = 1.7 * 9 / (np.linalg.eigvalsh(jacobian.T @ curvatures @ jacobian)[-1] + 9 * l2)
    weights = np.zeros(30)
    for _ in range(40):
        weights -= rate * (jacobian.T @ (slopes + curvatures @ (jacobian @ weights)) / 9 + l2 * weights)
    solved = dynamics.Dynamics(found.kernel, found.residuals, descents.GradientDescent(rate, l2))
    coefficients = found.coefficients(solved.coefficients(40))
    np.testing.assert_allclose(jacobian.T @ coefficients, weights, atol=1e-12)
    expected = problem.test_initial + (problem.test_jacobian @ weights).reshape(-1, outputs)
    test = solved.test_predictions(problem.test_initial, found.cross(problem.cross), 40)
    np.testing.assert_allclose(test, expected, atol=1e-11)


def test_deletions_are_newton_steps_of_what_is_left():
    problem = problems.make(outputs=3, width=12, num=10)
    labels = _labels(10, 3)
    slopes, curvatures = _derivatives(problem.initial, labels)
    found = gauss_newton.make(problem.kernel, problem.initial, labels)
    descent = descents.GradientDescent(1.0, 0.05, continuous=True)
    removed = leave_out.solve(found.kernel, found.residuals, descent, math.inf)
    keep = problem.rows([4])
    jacobian = problem.jacobian[keep]
    matrix = jacobian.T @ curvatures[np.ix_(keep, keep)] @ jacobian + 9 * 0.05 * np.eye(12)
    expected = -np.linalg.solve(matrix, jacobian.T @ slopes[keep])
    coefficients = found.coefficients(removed.without)
    np.testing.assert_allclose(coefficients[4] @ problem.jacobian, expected, atol=1e-11)


@pytest.mark.parametrize("outputs", [1, 3])
def test_the_fit_compares_the_model_with_the_loss(outputs):
    problem = problems.make(outputs=outputs, width=30)
    labels = _labels(9, outputs)
    slopes, curvatures = _derivatives(problem.initial, labels)
    found = gauss_newton.make(problem.kernel, problem.initial, labels)
    for scale in (1e-3, 1.0):
        change = scale * np.random.default_rng(5).normal(size=problem.initial.shape)
        fit = gauss_newton.fit(found, problem.initial + change)
        flat = change.ravel()
        model = _mean_loss(problem.initial, labels).numpy() + (slopes @ flat + flat @ curvatures @ flat / 2) / 9
        true = _mean_loss(problem.initial + change, labels).numpy()
        assert fit.model_loss == pytest.approx(model, abs=1e-14)
        assert fit.true_loss == pytest.approx(true, abs=1e-14)
        error = abs(model - true) / abs(true - fit.initial_loss)
        assert fit.relative_error == pytest.approx(error, rel=1e-6, abs=1e-10)
        # What a quadratic model leaves out is of third order.
        assert fit.relative_error < 10 * scale**2
    assert math.isnan(gauss_newton.fit(found, problem.initial).relative_error)


def test_true_training_equals_descent_of_the_loss_in_the_weights():
    problem = problems.make(outputs=3, width=30)
    labels = _labels(9, 3)
    found = gauss_newton.true_coefficients(
        problem.kernel, problem.initial, labels, descents.GradientDescent(0.5, 0.02), 25
    )
    whole = gauss_newton.true_coefficients(
        problem.kernel, problem.initial, labels, descents.GradientDescent(0.5, 0.02), 25.0
    )
    np.testing.assert_array_equal(whole, found)
    weights = tf.Variable(np.zeros(30))
    for _ in range(25):
        with tf.GradientTape() as tape:
            moved = tf.reshape(tf.linalg.matvec(problem.jacobian, weights), problem.initial.shape)
            loss = _mean_loss(problem.initial + moved, labels) + 0.01 * tf.reduce_sum(weights**2)
        weights.assign_sub(0.5 * tape.gradient(loss, weights))
    np.testing.assert_allclose(problem.jacobian.T @ found, weights.numpy(), atol=1e-12)


@pytest.mark.parametrize("gap", [3.0, 40.0, 200.0])
def test_confident_predictions_keep_their_gradient(gap):
    """B B^+ g = g, also where softmax has all but saturated on the wrong class."""
    problem = problems.make(outputs=3, width=30)
    predictions = np.tile([gap, -gap, 0.0], (9, 1))
    labels = np.arange(9) % 3
    found = gauss_newton.make(problem.kernel, predictions, labels)
    slopes = scipy.special.softmax(predictions, axis=1) - np.eye(3)[labels]
    np.testing.assert_allclose(found.coefficients(found.residuals.ravel()).reshape(9, 3), slopes, atol=1e-12)
    assert np.isfinite(found.kernel).all()


@pytest.mark.parametrize("outputs", [1, 2])
def test_predictions_without_curvature_are_refused(outputs):
    problem = problems.make(outputs=outputs)
    predictions = np.full((9, outputs), 800.0)
    predictions[:, 1:] = -800.0
    right, wrong = (np.ones(9), np.zeros(9)) if outputs == 1 else (np.zeros(9, int), np.ones(9, int))
    assert not gauss_newton.make(problem.kernel, predictions, right).residuals.any()
    with pytest.raises(errors.InvalidArgumentError, match="no curvature"):
        gauss_newton.make(problem.kernel, predictions, wrong)


@pytest.mark.parametrize(
    ("labels", "outputs"), [(np.full(9, 3), 3), (np.full(9, -1), 3), (np.full(9, 0.5), 3), (np.full(9, 1.5), 1)]
)
def test_labels_that_cannot_be_are_refused(labels, outputs):
    problem = problems.make(outputs=outputs)
    with pytest.raises(errors.InvalidArgumentError, match="labels of dtype"):
        gauss_newton.make(problem.kernel, problem.initial, labels)


def test_other_shapes_and_settings_are_refused():
    problem = problems.make(outputs=2)
    labels = _labels(9, 2)
    with pytest.raises(errors.MismatchError, match="labels of shape"):
        gauss_newton.make(problem.kernel, problem.initial, labels[1:])
    with pytest.raises(errors.MismatchError, match="predictions"):
        gauss_newton.make(problem.kernel, problem.initial[1:], labels)
    found = gauss_newton.make(problem.kernel, problem.initial, labels)
    with pytest.raises(errors.MismatchError, match="predictions"):
        gauss_newton.fit(found, problem.initial[1:])
    flow = descents.GradientDescent(0.1, continuous=True)
    with pytest.raises(errors.InvalidArgumentError, match="trained in steps"):
        gauss_newton.true_coefficients(problem.kernel, problem.initial, labels, flow, 3)
    with pytest.raises(errors.InvalidArgumentError, match="num_steps inf: steps are taken one by one"):
        gauss_newton.true_coefficients(problem.kernel, problem.initial, labels, descents.GradientDescent(0.1), math.inf)
    with pytest.raises(errors.MismatchError, match=r"kernel of shape \(18, 17\): expected a square matrix"):
        gauss_newton.make(problem.kernel[:, 1:], problem.initial, labels)
    with pytest.raises(errors.MismatchError, match=r"kernel of shape \(18, 17\): expected a square matrix"):
        gauss_newton.true_coefficients(problem.kernel[:, 1:], problem.initial, labels, descents.GradientDescent(0.1), 3)
    with pytest.raises(errors.MismatchError, match=r"cross kernel of shape \(8, 17\): expected \[m k, 18\]"):
        gauss_newton.make(problem.kernel, problem.initial, labels).cross(problem.cross[:, 1:])
    steep = descents.GradientDescent(1e6, 1e6)
    with pytest.raises(errors.NotFiniteError, match="not finite after"):
        gauss_newton.true_coefficients(problem.kernel, problem.initial, labels, steep, 200)
