"""Predicted beside true training, by numbers that can be done in the head."""

import math

import numpy as np
import pytest

from estimators import errors
from estimators.linearized import agreement


def test_errors_are_relative_to_how_far_training_went():
    initial = np.array([[1.0, 0.0], [0.0, 0.0]])
    true = initial + np.array([0, 1, 2, 4])[:, None, None] * np.array([[3.0, 4.0], [0.0, 0.0]])
    predicted = true + np.array([0, 0.1, 0.5, 0.1])[:, None, None] * np.array([[0.0, 5.0], [0.0, 0.0]])
    found = agreement.compare(np.array([0, 10, 20, 30]), predicted, true, initial, tolerance=0.2)
    np.testing.assert_allclose(found.relative_errors, [math.nan, 0.1, 0.25, 0.025])
    np.testing.assert_allclose(found.example_errors[1:], [[0.1, math.nan], [0.25, math.nan], [0.025, math.nan]])
    # It is followed no longer once it was left, though it comes back.
    assert found.holds_until == 10
    assert math.isnan(found.correlations[0])
    assert 0.9 < found.correlations[2] < found.correlations[3] < 1


def test_the_whole_training_and_none_of_it():
    true = np.arange(1.0, 4)[:, None] * np.ones(2)
    whole = agreement.compare(np.array([1, 2, 3]), true, true, np.zeros(2))
    assert whole.holds_until == 3
    none = agreement.compare(np.array([1, 2, 3]), -true, true, np.zeros(2))
    assert math.isnan(none.holds_until)


def test_what_does_not_fit_is_refused():
    true = np.ones((2, 3, 1))
    with pytest.raises(errors.MismatchError, match="at 3 times"):
        agreement.compare(np.arange(3), true, true, np.zeros((3, 1)))
    with pytest.raises(errors.MismatchError, match="predicted"):
        agreement.compare(np.arange(2), true[:, :2], true, np.zeros((3, 1)))
    with pytest.raises(errors.InvalidArgumentError, match="ascending"):
        agreement.compare(np.array([2, 2]), true, true, np.zeros((3, 1)))
    with pytest.raises(errors.InvalidArgumentError, match="ascending"):
        agreement.compare(np.zeros(0), true[:0], true[:0], np.zeros((3, 1)))
    with pytest.raises(errors.InvalidArgumentError, match="tolerance"):
        agreement.compare(np.arange(2), true, true, np.zeros((3, 1)), tolerance=0.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e200])
@pytest.mark.parametrize("diverged", ["true", "predicted", "both"])
def test_training_that_diverged_is_not_followed(value, diverged):
    true = np.arange(1.0, 4)[:, None] * np.ones(2)
    true, predicted = true.copy(), true.copy()
    for name, values in (("true", true), ("predicted", predicted)):
        if diverged in (name, "both"):
            values[2, 0] = value
    if diverged == "both" and value == 1e200:
        predicted[2, 0] *= 2
    found = agreement.compare(np.array([1, 2, 3]), predicted, true, np.zeros(2))
    assert found.holds_until == 2
    np.testing.assert_array_equal(found.relative_errors[:2], 0.0)
    assert not found.relative_errors[2] < math.inf or (diverged, value) == ("true", 1e200)


def test_a_prediction_of_change_where_nothing_changes_is_infinitely_wrong():
    true = np.zeros((2, 2))
    predicted = np.array([[0.0, 0.0], [0.0, 1e-9]])
    found = agreement.compare(np.array([1, 2]), predicted, true, np.zeros(2))
    np.testing.assert_array_equal(found.relative_errors, [math.nan, math.inf])
    np.testing.assert_array_equal(found.example_errors[1], [math.nan, math.inf])
    assert found.holds_until == 1
