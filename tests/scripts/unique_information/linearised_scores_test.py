"""Scores held against networks that are linear in their weights and trained again without each example."""

import dataclasses
import math

import numpy as np
import pytest

from scripts.unique_information import linearised_scores, linearised_training, scoring_config
from tests.scripts.unique_information import problems
from zoo import errors

_RATE, _STEPS, _L2 = 0.8, 150, 0.05
_TRAINING = scoring_config.Training(_RATE, _STEPS, _L2)
_ALL = tuple(scoring_config.MEASURES)


def scores(problem, *measures, training=_TRAINING, groups=None, **options):
    config = scoring_config.ScoringConfig(measures or _ALL, **options)
    return linearised_scores.compute(problem, training, config, groups=groups)


def changes(train, problem, groups, l2=_L2):
    """(w, w_-g - w) by training again."""
    full = problems.descend(train, problem.residuals, _RATE, _STEPS, l2)
    without = [problems.descend(train, problem.residuals, _RATE, _STEPS, l2, group) for group in groups]
    return full, np.stack(without) - full


@pytest.mark.parametrize("form", ["dual", "primal"])
@pytest.mark.parametrize("num_outputs", [1, 2])
def test_every_column_is_that_of_training_again(form, num_outputs):
    train, val = problems.jacobians(num_outputs=num_outputs, num_parameters=7 if form == "primal" else 30)
    problem = problems.problem(train, val, form)
    full, moved = changes(train, problem, [[i] for i in range(len(train))])
    found = scores(problem, sigma_weights=0.5, sigma_predictions=2.0, noise_floors=(1e-3,)).columns

    def close(name, expected):
        np.testing.assert_allclose(found[name], expected, rtol=1e-7, atol=1e-12, err_msg=name)

    squared = np.sum(moved**2, axis=1)
    close("weights_squared", squared)
    close("weights", squared / (2 * 0.5**2))
    on_train, on_val = (np.einsum("nkp,gp->gnk", rows, moved) for rows in (train, val))
    close("predictions_squared", np.mean(np.sum(on_val**2, axis=2), axis=1))
    close("predictions", np.mean(np.sum(on_val**2, axis=2), axis=1) / (2 * 2.0**2))
    close("train_prediction_stability_squared", np.mean(np.sum(on_train**2, axis=2), axis=1))
    own = on_train[np.arange(len(train)), np.arange(len(train))]
    close("self_effect_squared", np.sum(own**2, axis=1))
    for name, rows, change in (("train", train, on_train), ("val", val, on_val)):
        start = getattr(problem, f"{name}_output") + rows @ full - getattr(problem, f"{name}_target")
        losses = np.sum((start + change) ** 2 - start**2, axis=2) / 2
        close(f"{name}_loss_change", losses.mean(axis=1))
        close(f"{name}_loss_stability", np.abs(losses).mean(axis=1))


@pytest.mark.parametrize("form", ["dual", "primal"])
@pytest.mark.parametrize("num_parameters", [7, 30])
def test_accumulation_is_the_movement_along_the_gradients_of_each_example(form, num_parameters):
    train, val = problems.jacobians(num_parameters=num_parameters)
    problem = problems.problem(train, val, form)
    parts = np.zeros((len(train), num_parameters))
    problems.descend(train, problem.residuals, _RATE, _STEPS, parts=parts)
    training = dataclasses.replace(_TRAINING, l2=0.0)
    found = scores(problem, "accumulation", training=training).columns["accumulation_squared"]
    np.testing.assert_allclose(found, np.sum(parts**2, axis=1), rtol=1e-8)


@pytest.mark.parametrize("time", [40, math.inf])
@pytest.mark.parametrize("l2", [0.0, 0.05])
def test_coefficients_move_the_weights_as_far_in_features_as_in_kernels(time, l2):
    train, val = problems.jacobians(num_parameters=7)
    training, rows = scoring_config.Training(_RATE, 10, l2), train.reshape(-1, 7)
    primal, dual = (
        linearised_training.Linearised(problems.problem(train, val, form), training) for form in ("primal", "dual")
    )
    found = primal.coefficients(time)
    np.testing.assert_allclose(rows.T @ found, primal.solution(time), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(found, dual.coefficients(time), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("form", ["dual", "primal"])
def test_influence_functions_are_one_newton_step(form):
    train, val = problems.jacobians()
    problem = problems.problem(train, val, form)
    full = problems.descend(train, problem.residuals, _RATE, _STEPS, _L2)
    num, rows = len(train), train.reshape(-1, 30)
    matrix = rows.T @ rows / num + (_L2 + 0.3) * np.eye(30)
    at_the_end = problem.residuals + train @ full
    gradients = np.einsum("nkp,nk->np", train, at_the_end)
    moved = np.linalg.solve(matrix, gradients.T).T / num
    found = scores(problem, "influence_functions", influence_damping=0.3).columns
    np.testing.assert_allclose(found["influence_weights_squared"], np.sum(moved**2, axis=1), rtol=1e-8)
    on_val = np.einsum("nkp,gp->gnk", val, moved)
    expected = np.mean(np.sum(on_val**2, axis=2), axis=1)
    np.testing.assert_allclose(found["influence_predictions_squared"], expected, rtol=1e-8)


def test_groups_are_left_out_together():
    train, val = problems.jacobians()
    problem = problems.problem(train, val)
    groups = [np.array([1, 4]), np.array([0, 2, 7])]
    _, moved = changes(train, problem, groups)
    found = scores(problem, "weights", "self_effect", groups=groups)
    np.testing.assert_allclose(found.columns["weights_squared"], np.sum(moved**2, axis=1), rtol=1e-8)
    own = np.stack([(train[group] @ change).mean(axis=0) for group, change in zip(groups, moved, strict=True)])
    np.testing.assert_allclose(found.self_effect[""], own, rtol=1e-7)
    with pytest.raises(errors.InvalidValueError, match=r"--measure=accumulation: is of single examples"):
        scores(problem, "accumulation", groups=groups)


@pytest.mark.parametrize("form", ["dual", "primal"])
def test_a_part_of_a_problem_is_that_of_the_others_never_having_been_there(form):
    train, val = problems.jacobians()
    problem = problems.problem(train, val, form)
    places = np.array([7, 0, 3, 5, 2])
    part = problem.take(places)
    np.testing.assert_array_equal(part.train_index, problem.train_index[places])
    _, moved = changes(train[places], part, [[i] for i in range(5)])
    found = scores(part, "weights", "predictions").columns
    np.testing.assert_allclose(found["weights_squared"], np.sum(moved**2, axis=1), rtol=1e-8)
    on_val = np.einsum("nkp,gp->gnk", val, moved)
    np.testing.assert_allclose(found["predictions_squared"], np.mean(np.sum(on_val**2, axis=2), axis=1), rtol=1e-8)


def test_several_times_have_names_of_their_own_and_facts():
    problem = problems.problem(*problems.jacobians())
    found = scores(
        problem, "weights", "self_effect", "weights_sgd", times=(None, 1.0, math.inf), noise_floors=(1e-3, 1)
    )
    one = scores(problem, "weights", times=(1.0,))
    names = {name for name in found.columns if name.startswith("weights_squared")}
    assert names == {"weights_squared_t150", "weights_squared_t1", "weights_squared_tinf"}
    assert {"weights_sgd_t1", "weights_sgd_floor_1_t1", "self_effect_squared_tinf"} <= set(found.columns)
    assert set(found.self_effect) == {"_t150", "_t1", "_tinf"}
    np.testing.assert_array_equal(found.columns["weights_t1"], one.columns["weights"])
    assert set(found.described) == set(found.columns)
    facts = found.facts["150"]
    assert facts["change_error"] < 1e-8
    assert facts["num_checked"] == 2
    assert 0 < facts["step_times_largest_eigenvalue"] < 2
    assert facts["sgd_noise_outside"] < 1e-6
    assert set(found.facts) == {"150", "1", "inf"}


def test_steps_that_diverge_are_refused_and_gradient_flow_is_not():
    problem = problems.problem(*problems.jacobians())
    training = scoring_config.Training(100.0, 10)
    match = r"--learning_rate=100: steps of the linearised network diverge.*--dynamics=continuous"
    with pytest.raises(errors.InvalidValueError, match=match):
        scores(problem, "weights", training=training)
    found = scores(problem, "weights", training=training, dynamics="continuous")
    assert np.isfinite(found.columns["weights"]).all()


def test_how_far_the_linearised_network_is_the_true_one():
    train, val = problems.jacobians()
    problem = problems.problem(train, val)
    linearised = linearised_training.Linearised(problem, _TRAINING)
    moved = [problems.descend(train, problem.residuals, _RATE, steps, _L2) for steps in (3, _STEPS)]
    true = [
        np.stack([start + rows @ one for one in moved])
        for start, rows in ((problem.train_output, train), (problem.val_output, val))
    ]
    found = linearised_training.followed(linearised, [3, _STEPS], *true)
    assert found["steps"] == [3, _STEPS]
    assert max(found["train_relative_error"] + found["val_relative_error"]) < 1e-10
    true[0][1] += 0.1 * (true[0][1] - problem.train_output)
    off = linearised_training.followed(linearised, [3, _STEPS], *true)
    assert off["train_relative_error"][1] == pytest.approx(0.1 / 1.1)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"measures": ("weight",)}, r"--measure=weight: expected some of weights, "),
        ({"measures": ()}, r"--measure=: expected at least one, each once"),
        ({"times": (1.0, 1.0)}, r"--t=1,1: expected at least one time, each once"),
        ({"dynamics": "slow"}, r"--dynamics=slow: expected one of discrete, continuous"),
        ({"convention": "none"}, r"--convention=none: expected one of mean, fixed, published"),
        ({"sigma_weights": 0.0}, r"--sigma_weights=0.0: expected a number above 0"),
        ({"noise_floors": (-1.0,)}, r"--noise_floors=-1 .*expected numbers from 0 up"),
        ({"num_checked": -1}, r"--num_checked=-1: expected numbers from 0 up"),
        ({"times": (math.nan,)}, r"--t=nan: expected numbers of steps from 0 up"),
        ({"times": (-5.0,)}, r"--t=-5: expected numbers of steps from 0 up"),
        ({"times": (None, 1.5)}, r"--t=experiment,1.5: .*whole ones unless --dynamics=continuous"),
        ({"noise_floors": (0.1, 0.1)}, r"--noise_floors=0.1,0.1: expected each floor once"),
    ],
)
def test_scoring_that_cannot_be_is_refused(options, match):
    with pytest.raises(errors.InvalidValueError, match=match):
        scoring_config.ScoringConfig(**options)


def test_times_and_floors_that_are_nearly_equal_have_names_of_their_own():
    config = scoring_config.ScoringConfig(("weights",), (1000000.0, 1000001.0, math.inf))
    assert scoring_config.main_columns(config, 5) == ["weights_t1000000", "weights_t1000001", "weights_tinf"]
    flow = scoring_config.ScoringConfig(("weights",), (0.1, 0.10000001), "continuous")
    assert scoring_config.main_columns(flow, 5) == ["weights_t0.1", "weights_t0.10000001"]


def test_scoring_is_the_same_from_its_json():
    config = scoring_config.ScoringConfig(("weights", "effects"), (None, 10.0, math.inf), noise_floors=(0.0, 1.0))
    assert scoring_config.ScoringConfig.from_json(config.to_json()) == config
    assert scoring_config.main_columns(config, 5) == ["weights_t5", "weights_t10", "weights_tinf"]
    with pytest.raises(errors.InvalidValueError, match=r"--t=10,10,inf: expected each time once"):
        config.at(10)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"projection": "x"}, r"--projection=x: expected one of none, "),
        ({"form": "x"}, r"--form=x: expected one of auto, dual, primal"),
        ({"num_features": 0}, r"--num_features=0: expected at least 1"),
        ({"projection_seed": -1}, r"--projection_seed=-1: expected 0 to 4294967295"),
    ],
)
def test_linearisations_that_cannot_be_are_refused(options, match):
    with pytest.raises(errors.InvalidValueError, match=match):
        scoring_config.LinearisationConfig(**options)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((0.0, 1), r"--learning_rate=0.0: expected a number above 0"),
        ((1.0, 0), r"--num_steps=0: expected a number above 0"),
        ((1.0, 1, -1.0), r"--l2=-1.0: expected a number from 0 up"),
    ],
)
def test_trainings_that_cannot_be_are_refused(arguments, match):
    with pytest.raises(errors.InvalidValueError, match=match):
        scoring_config.Training(*arguments)
