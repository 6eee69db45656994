"""Representer points: they add up to the prediction at the optimum, and at the optimum only."""

import numpy as np
import pytest
import scipy.special
import sklearn.datasets

from estimators import errors, representer_points

_DECAY = 0.01


@pytest.fixture(scope="module")
def digits():
    images, labels = sklearn.datasets.load_digits(return_X_y=True)
    return images / 16, labels


@pytest.fixture(scope="module")
def fitted(digits):
    return representer_points.fit(digits[0][:300], digits[1][:300], _DECAY)


def test_they_add_up_to_the_predictions(digits, fitted):
    features, labels = digits[0][300:340], digits[1][300:340]
    found = fitted.scores(features, labels)
    logits = fitted.predictions(features)
    np.testing.assert_allclose(found.values.sum(axis=0), logits[np.arange(40), labels], rtol=1e-5, atol=1e-6)
    assert found.values.shape == (300, 40)
    assert not found.lower_is_better


def test_the_layer_is_the_optimum_of_the_objective(digits, fitted):
    """dL/dPhi of cross-entropy is softmax less one-hot; the bias is a feature of ones that decays likewise."""
    rows = np.concatenate([digits[0][:300], np.ones((300, 1))], axis=1)
    slopes = scipy.special.softmax(rows @ fitted.weights, axis=1) - np.eye(10)[digits[1][:300]]
    np.testing.assert_allclose(rows.T @ slopes / 300 + _DECAY * fitted.weights, 0.0, atol=1e-8)
    np.testing.assert_allclose(fitted.alpha, -slopes / (_DECAY * 300), atol=1e-9)
    # With the factor of the published penalty, lambda |W|^2, half of each prediction would be missing.
    np.testing.assert_allclose(rows.T @ fitted.alpha, fitted.weights, atol=1e-6)


def test_ridge_regression_in_closed_form():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 4)), rng.normal(size=(20, 2))
    weights = np.linalg.solve(x.T @ x / 20 + 0.5 * np.eye(4), x.T @ y / 20)
    found = representer_points.fit(x, y, 0.5, loss="squared_error", bias=False, start=rng.normal(size=(4, 2)))
    np.testing.assert_allclose(found.weights, weights, atol=1e-8)
    np.testing.assert_allclose(found.alpha, (y - x @ weights) / 10, atol=1e-8)
    one = representer_points.fit(x, y[:, 0], 0.5, loss="squared_error", bias=False)
    np.testing.assert_allclose(one.weights, weights[:, :1], atol=1e-8)


def test_examples_of_a_class_raise_its_logit(digits, fitted):
    found = fitted.scores(digits[0][300:340], digits[1][300:340])
    same = digits[1][:300, None] == digits[1][None, 300:340]
    assert (found.values[same] >= 0).all()
    assert (found.values[~same] <= 0).all()


def test_features_of_a_model_are_read_in_batches(digits):
    found = representer_points.features_of(lambda x: x[:, None] * 2.0, (digits[0][:7], digits[1][:7]), batch_size=3)
    np.testing.assert_allclose(found, 2 * digits[0][:7])


def test_misuse_is_refused(digits, fitted):
    x, y = digits[0][:50], digits[1][:50]
    with pytest.raises(errors.InvalidArgumentError, match=r"weight_decay 0: must be above 0"):
        representer_points.fit(x, y, 0)
    with pytest.raises(errors.MismatchError, match=r"features of shape \(49, 64\) beside 50 labels"):
        representer_points.fit(x[:49], y, 0.1)
    with pytest.raises(errors.MismatchError, match=r"start of shape \(64, 10\): expected \(65, 10\)"):
        representer_points.fit(x, y, 0.1, start=np.zeros((64, 10)))
    with pytest.raises(errors.InvalidArgumentError, match="label 5 of example 5: the model has 5 classes"):
        representer_points.fit(x, y, 0.1, num_outputs=5)
    with pytest.raises(errors.SolverError, match="from its optimum after 2 iterations at most"):
        representer_points.fit(x, y, 0.001, max_iterations=2)
    with pytest.raises(errors.MismatchError, match=r"expected \[M, 64\] and \[M\]"):
        fitted.scores(x[:, :3], y)
    with pytest.raises(errors.InvalidArgumentError, match="there are 10"):
        fitted.scores(x, y + 5)
