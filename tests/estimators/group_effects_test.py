"""Group effects against retraining ridge regression in closed form."""

import dataclasses

import numpy as np
import pytest

from estimators import errors, group_effects, influence_functions
from tests.estimators import linear_cases, models
from tests.reference import curvature as reference
from tests.reference import gradients

_GROUPS = [np.array([3]), np.array([0, 5, 7]), np.arange(6)]


@pytest.fixture(scope="module")
def ridge():
    return linear_cases.ridge()


@pytest.fixture(scope="module")
def fitted(ridge):
    return influence_functions.InfluenceFunctions(ridge.target, "explicit", batch_size=2).fit((ridge.x, ridge.y))


@pytest.mark.parametrize("rescale", [False, True])
def test_what_each_order_leaves_out_is_known_exactly(rescale, ridge, fitted):
    """For a quadratic loss delta = (H - H_U)^-1 b, so that k orders leave (H^-1 H_U)^k delta out."""
    num = len(ridge.x)
    for group in _GROUPS:
        exact = ridge.without(group, rescale=rescale) - ridge.theta
        part = ridge.x[group].T @ ridge.x[group] / num
        if rescale:
            part += len(group) / num * ridge.decay * np.eye(5)
        ratio = np.linalg.solve(ridge.hessian, part)
        for order in (1, 2):
            found = group_effects.parameter_changes(fitted, [group], order=order, rescale=rescale).numpy()[0]
            np.testing.assert_allclose(found, exact - np.linalg.matrix_power(ratio, order) @ exact, atol=1e-10)


@pytest.mark.parametrize("kind", ["hessian", "empirical_fisher"])
def test_the_curvature_of_a_group_is_of_the_kind_that_was_inverted(kind):
    """C^-1 C_U C^-1 b, where Hessian and Gauss-Newton matrix differ, with weight decay in C and not in C_U."""
    case, group = models.ALL["mlp"](), np.array([1, 4])
    decayed = dataclasses.replace(case.target, weight_decay=(0.3,) * 4)
    fitted = influence_functions.InfluenceFunctions(decayed, "explicit", damping=0.5, curvature=kind)
    fitted.fit((case.inputs, case.labels))
    whole = getattr(reference, kind)(decayed, case.inputs, case.labels) + 0.5 * np.eye(39)
    part = getattr(reference, kind)(case.target, case.inputs[group], case.labels[group])
    source = gradients.single(case.target, case.inputs[group], case.labels[group]).sum(axis=0) / 7
    first = np.linalg.solve(whole, source)
    expected = first + np.linalg.solve(whole, 2 / 7 * part @ first)
    np.testing.assert_allclose(group_effects.parameter_changes(fitted, [group]).numpy()[0], expected, atol=1e-10)


def test_the_second_order_is_closer_to_the_truth(ridge, fitted):
    exact = np.array([ridge.x_test @ (ridge.theta - ridge.without(group)) for group in _GROUPS])
    test = (ridge.x_test, ridge.y_test)
    first, second = (group_effects.scores(fitted, _GROUPS, test, "measured", order=k).values for k in (1, 2))
    for k in range(len(_GROUPS)):
        assert np.abs(second[k] - exact[k]).max() < 0.6 * np.abs(first[k] - exact[k]).max()


def test_the_first_order_adds_up_single_examples(ridge, fitted):
    test = (ridge.x_test, ridge.y_test)
    for of in ("loss", "measured"):
        single = fitted.scores((ridge.x, ridge.y), test, of=of).values
        found = group_effects.scores(fitted, _GROUPS, test, of, order=1)
        np.testing.assert_allclose(found.values, [single[g].sum(axis=0) for g in _GROUPS], atol=1e-12)
    assert found.unit == "output"
    np.testing.assert_array_equal(found.train_ids, [0, 1, 2])


def test_groups_that_are_none_are_refused(ridge, fitted):
    for group in (np.array([12]), np.array([-1]), np.array([1, 1]), np.array([], int), np.array([0.5])):
        with pytest.raises(errors.InvalidArgumentError, match="expected different positions from 0 to 11"):
            group_effects.parameter_changes(fitted, [group])
    with pytest.raises(errors.InvalidArgumentError, match="no groups"):
        group_effects.parameter_changes(fitted, [])
    with pytest.raises(errors.InvalidArgumentError, match="order 3: expected 1 or 2"):
        group_effects.scores(fitted, _GROUPS, (ridge.x_test, ridge.y_test), order=3)
