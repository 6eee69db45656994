"""Scores in predictions and losses against the same of explicitly trained weights."""

import numpy as np
import pytest

from estimators import errors
from estimators.linearized import descents, dynamics, leave_out, solutions
from estimators.unique_information import predictions
from tests.estimators.linearized import problems

_RATE, _L2, _TIME = 0.02, 0.03, 120
_GROUPS = [np.array([place]) for place in range(9)] + [np.array([2, 5, 6])]


@pytest.fixture(scope="module", params=["dual", "primal"])
def case(request):
    problem = problems.make(outputs=2, width=30)
    descent = descents.GradientDescent(_RATE, _L2)
    if request.param == "dual":
        removed = leave_out.solve(problem.kernel, problem.residuals, descent, _TIME, groups=_GROUPS)
        return problem, removed, problem.cross
    removed = leave_out.solve_primal(problem.jacobian, problem.residuals, descent, _TIME, groups=_GROUPS)
    return problem, removed, problem.test_jacobian


@pytest.fixture(scope="module")
def weights():
    """[1 + G, P], trained explicitly on all, and without each group."""
    problem = problems.make(outputs=2, width=30)
    return np.stack([problems.descend(problem, _RATE, _L2, _TIME, group) for group in [(), *_GROUPS]])


def test_functional_information_is_a_quadratic_form_of_the_weights(case, weights):
    problem, removed, cross = case
    changes = weights[1:] - weights[0]
    fisher = problem.test_jacobian.T @ problem.test_jacobian / 4
    expected = np.sum(changes @ fisher * changes, axis=1)
    found = predictions.functional(removed, cross, sigma=0.5)
    np.testing.assert_allclose(found.squared_norms, expected, rtol=1e-8)
    np.testing.assert_allclose(found.nats, expected / 0.5, rtol=1e-8)
    assert found.config["num_test"] == 4


def test_effects_are_signed(case, weights):
    problem, removed, cross = case
    expected = ((weights[1:] - weights[0]) @ problem.test_jacobian.T).reshape(10, 4, 2)
    np.testing.assert_allclose(predictions.effects(removed, cross), expected, atol=1e-12)
    out = np.zeros((10, 4, 2), np.float32)
    assert predictions.effects(removed, cross, out=out) is out
    np.testing.assert_allclose(out, expected, atol=1e-6)
    with pytest.raises(errors.MismatchError, match="out of shape"):
        predictions.effects(removed, cross, out=out[1:])
    with pytest.raises(errors.MismatchError, match=r"dtype int64 .*: expected a writeable array of floats"):
        predictions.effects(removed, cross, out=np.zeros((10, 4, 2), np.int64))
    out.flags.writeable = False
    with pytest.raises(errors.MismatchError, match="writeable: False"):
        predictions.effects(removed, cross, out=out)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_test_rows_that_are_no_numbers_are_refused(case, value):
    _, removed, cross = case
    wrong = np.array(cross)
    wrong[3, 1] = value
    for function in (
        lambda rows: predictions.functional(removed, rows, sigma=1.0),
        lambda rows: predictions.effects(removed, rows),
        lambda rows: predictions.loss_changes(removed, rows, np.ones((4, 2))),
    ):
        with pytest.raises(errors.InvalidArgumentError, match="not finite"):
            function(wrong)


def test_no_test_rows_are_refused(case):
    _, removed, cross = case
    with pytest.raises(errors.EstimatorError, match="cross"):
        predictions.functional(removed, cross[:0], sigma=1.0)
    with pytest.raises(errors.EstimatorError, match="cross"):
        predictions.loss_changes(removed, cross[:0], np.ones((0, 2)))


def test_self_effects_and_stability_of_training_predictions(case, weights):
    problem, removed, _ = case
    moved = ((weights[1:] - weights[0]) @ problem.jacobian.T).reshape(10, 9, 2)
    for place, own in enumerate(predictions.self_effects(removed)):
        np.testing.assert_allclose(own, moved[place, _GROUPS[place]], atol=1e-12)
    found = predictions.train_prediction_stability(removed, sigma=0.5)
    expected = np.mean(np.sum(moved**2, axis=2), axis=1)
    np.testing.assert_allclose(found.squared_norms, expected, rtol=1e-8)
    np.testing.assert_allclose(found.nats, expected / 0.5, rtol=1e-8)


def test_changes_of_losses(case, weights):
    problem, removed, cross = case
    solved = dynamics.Dynamics(problem.kernel, problem.residuals, removed.descent)
    residuals = problem.residuals + (weights @ problem.jacobian.T).reshape(11, 9, 2)
    losses = 0.5 * np.sum(residuals**2, axis=2)
    changes = losses[1:] - losses[0]
    found = predictions.train_loss_stability(removed, solved.residuals(_TIME))
    np.testing.assert_allclose(found.mean, changes.mean(axis=1), atol=1e-12)
    np.testing.assert_allclose(found.mean_absolute, np.abs(changes).mean(axis=1), atol=1e-12)
    for place, group in enumerate(_GROUPS):
        assert found.own[place] == pytest.approx(changes[place, group].mean(), abs=1e-12)
        assert found.others[place] == pytest.approx(np.delete(changes[place], group).mean(), abs=1e-12)
    # What is left out is predicted worse.
    assert found.own.mean() > 0
    wanted = np.random.default_rng(4).normal(size=(4, 2))
    test = problem.test_initial - wanted + (weights @ problem.test_jacobian.T).reshape(11, 4, 2)
    test_losses = 0.5 * np.sum(test**2, axis=2)
    other = predictions.loss_changes(removed, cross, test[0])
    np.testing.assert_allclose(other.mean, (test_losses[1:] - test_losses[0]).mean(axis=1), atol=1e-12)
    assert np.isnan(other.own).all()
    assert np.isnan(other.others).all()


def test_groups_in_parts_give_the_same(case, monkeypatch):
    problem, removed, cross = case
    whole = predictions.functional(removed, cross, sigma=1.0).nats, predictions.effects(removed, cross)
    monkeypatch.setattr(solutions, "_CHUNK_BYTES", 600.0)
    parts = list(removed.prediction_changes(cross))
    assert len(parts) > 1
    np.testing.assert_allclose(predictions.functional(removed, cross, sigma=1.0).nats, whole[0], rtol=1e-12)
    np.testing.assert_allclose(predictions.effects(removed, cross), whole[1], atol=1e-14)
    assert problem.labels.shape == (9, 2)


def test_what_does_not_fit_is_refused(case):
    _, removed, cross = case
    with pytest.raises(errors.MismatchError, match="residuals"):
        predictions.loss_changes(removed, cross, np.ones((3, 2)))
    with pytest.raises(errors.MismatchError, match="expected 2 outputs"):
        predictions.loss_changes(removed, cross, np.ones(8))
    with pytest.raises(errors.InvalidArgumentError, match="sigma"):
        predictions.functional(removed, cross, sigma=0.0)


@pytest.mark.parametrize("num_rows_at_a_time", [4096, 5])
def test_more_rows_than_features(num_rows_at_a_time, monkeypatch):
    """There squares are summed by way of a Gram matrix."""
    monkeypatch.setattr(solutions, "_ROW_BLOCK", num_rows_at_a_time)
    problem = problems.make(outputs=2, width=5)
    removed = leave_out.solve_primal(problem.jacobian, problem.residuals, descents.GradientDescent(_RATE), _TIME)
    moved = (removed.without - removed.full) @ problem.jacobian.T
    expected = np.sum(moved**2, axis=1) / 9
    found = predictions.train_prediction_stability(removed, sigma=0.5)
    np.testing.assert_allclose(found.squared_norms, expected, rtol=1e-10)
    with pytest.raises(errors.MismatchError, match="cross kernel or features of shape"):
        removed.squared_prediction_changes(problem.jacobian[:-1])
