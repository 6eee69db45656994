"""Datamodels: cross-validation as scikit-learn does it, held-out scores by plain loops, planted and absent effects."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import sklearn.linear_model
import sklearn.model_selection

from heldout.scoring import datamodel_path, datamodels
from tests.reference import scores as reference
from zoo import errors, packed_bits

_PRECISE = datamodels.Options(num_lambdas=30, lambda_ratio=0.02, tolerance=1e-10)


def design(mask):
    return datamodel_path.design(packed_bits.pack(mask), mask.shape[1])


def problem(num_runs=150, num_train=60, seed=0, noise=0.5):
    """Independent membership, and an output that examples 7 and 20 raise and example 33 lowers."""
    generator = np.random.default_rng(seed)
    mask = generator.random((num_runs, num_train)) < 0.7
    effect = 1.0 * mask[:, 7] + 0.8 * mask[:, 20] - 1.2 * mask[:, 33]
    return mask, effect + noise * generator.normal(size=num_runs) - 2


def assert_same(model, other):
    for field in dataclasses.fields(model):
        np.testing.assert_array_equal(getattr(model, field.name), getattr(other, field.name), err_msg=field.name)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("num_folds", [3, 5])
def test_penalty_and_weights_are_those_of_lasso_cv(seed, num_folds):
    mask, output = problem(num_runs=101, seed=seed)
    options = dataclasses.replace(_PRECISE, num_folds=num_folds)
    validation = datamodels.cross_validate(design(mask), output, options)
    truth = sklearn.linear_model.LassoCV(
        alphas=validation.penalties, cv=sklearn.model_selection.KFold(num_folds), tol=1e-10, max_iter=100_000
    ).fit(mask.astype(float), output)
    np.testing.assert_allclose(validation.squared_error, truth.mse_path_.T, rtol=1e-5)
    model = datamodels.fit(design(mask), output, options)
    assert model.penalty == truth.alpha_
    weights = np.zeros(60)
    weights[model.train_index] = model.weight
    np.testing.assert_allclose(weights, truth.coef_, atol=1e-5)
    assert model.intercept == pytest.approx(truth.intercept_, abs=1e-4)
    assert model.relative_gap <= options.tolerance


def ranks(values):
    """Average ranks by counting."""
    return [sum(other < value for other in values) + sum(other == value for other in values) / 2 for value in values]


def correlation(first, second):
    first, second = np.array(first) - np.mean(first), np.array(second) - np.mean(second)
    return first @ second / math.sqrt((first @ first) * (second @ second))


def test_held_out_scores_are_those_of_plain_loops():
    mask, output = problem(num_runs=90, seed=4, noise=1.5)
    model = datamodels.fit(design(mask), output, _PRECISE)
    masks = design(mask)
    penalties = datamodel_path.penalties(datamodel_path.largest_penalty(masks, output), 30, 0.02)
    parts = [test for _, test in sklearn.model_selection.KFold(5).split(mask)]
    predictions = []
    for part in parts:
        rest = np.setdiff1d(np.arange(90), part)
        columns, mean = mask[rest] - mask[rest].mean(axis=0), output[rest].mean()
        _, weights, _ = sklearn.linear_model.lasso_path(
            np.asfortranarray(columns), output[rest] - mean, alphas=penalties, tol=1e-10, max_iter=100_000
        )
        predictions.append(mean + (mask[part] - mask[rest].mean(axis=0)) @ weights)
    squared, baseline, linear, ranked = 0.0, 0.0, [], []
    for fold, part in enumerate(parts):
        error = sum(
            np.mean((predictions[other] - output[parts[other], np.newaxis]) ** 2, axis=0)
            for other in range(5)
            if other != fold
        )
        predicted = predictions[fold][:, np.argmin(error)]
        squared += np.sum((output[part] - predicted) ** 2)
        baseline += np.sum((output[part] - np.delete(output, part).mean()) ** 2)
        linear.append(correlation(predicted, output[part]))
        ranked.append(correlation(ranks(predicted), ranks(output[part])))
    assert model.held_out_r2 == pytest.approx(1 - squared / baseline, abs=1e-5)
    assert model.held_out_correlation == pytest.approx(np.mean(linear), abs=1e-5)
    assert model.linear_datamodeling_score == pytest.approx(np.mean(ranked), abs=1e-3)
    assert model.num_scored_folds == 5


def test_what_was_planted_is_found_with_its_sign():
    mask, output = problem(num_runs=400)
    model = datamodels.fit(design(mask), output, datamodels.Options())
    strongest = model.train_index[np.argsort(-np.abs(model.weight))[:3]]
    assert set(strongest.tolist()) == {7, 20, 33}
    weights = dict(zip(model.train_index.tolist(), model.weight.tolist(), strict=True))
    # Five standard errors of a slope at this noise, and what the penalty takes.
    error = 5 * 0.5 / math.sqrt(400 * 0.21) + model.penalty / 0.21
    assert [weights[k] for k in (7, 20, 33)] == pytest.approx([1.0, 0.8, -1.2], abs=error)
    # Of the variance, 0.21 (1 + 0.64 + 1.44) is explained, 0.25 is noise.
    assert model.held_out_r2 == pytest.approx(0.437 / (0.437 + 0.25), abs=0.1)
    assert model.linear_datamodeling_score > 0.6


def test_without_an_effect_nothing_is_predicted():
    generator = np.random.default_rng(9)
    mask = generator.random((100, 50)) < 0.5
    outputs = generator.normal(size=(100, 40))
    models = datamodels.fit_all(design(mask), outputs, datamodels.Options(num_lambdas=30, lambda_ratio=0.05))
    r2 = np.array([model.held_out_r2 for model in models])
    # A penalty chosen with the errors it is judged by would give a mean above 0.
    assert r2.mean() < 2 * r2.std() / math.sqrt(len(r2))
    scored = [model.held_out_correlation for model in models if model.num_scored_folds]
    assert abs(np.mean(scored)) < 4 / math.sqrt(100)
    assert all(np.isnan(model.held_out_correlation) for model in models if not model.num_scored_folds)


def test_over_all_subsets_weights_are_subset_influence_moved_towards_0():
    mask = np.array(list(itertools.product((False, True), repeat=7)))
    correct = (mask[:, 1] & mask[:, 4]) | mask[:, 6]
    influence = reference.subset_influence(mask, correct[:, np.newaxis])[0][:, 0]
    # The rows in an order in which folds are alike.
    order = np.random.default_rng(2).permutation(len(mask))
    model = datamodels.fit(design(mask[order]), correct[order].astype(float), _PRECISE)
    weights = np.zeros(7)
    weights[model.train_index] = model.weight
    expected = np.sign(influence) * np.maximum(np.abs(influence) - 4 * model.penalty, 0)
    np.testing.assert_allclose(weights, expected, atol=1e-9)
    assert {1, 4, 6} <= set(model.train_index.tolist())
    assert np.all(weights[[1, 4, 6]] > 0)


def test_neither_threads_nor_neighbours_change_a_bit():
    mask, output = problem()
    outputs = np.stack([output, np.flip(output), output**2, output > -2], axis=1).astype(float)
    counts = []
    threaded = datamodels.fit_all(design(mask), outputs, datamodels.Options(), threads=3, progress=counts.append)
    assert counts == [1, 2, 3, 4]
    for column, model in enumerate(threaded):
        assert_same(model, datamodels.fit(design(mask), outputs[:, column], datamodels.Options()))


def test_an_output_that_never_varies_has_no_weights_and_no_scores():
    mask, _ = problem()
    model = datamodels.fit(design(mask), np.ones(150), datamodels.Options())
    assert (model.intercept, len(model.weight), model.num_runs, model.num_scored_folds) == (1, 0, 150, 0)
    names = ("penalty", "held_out_r2", "held_out_correlation", "linear_datamodeling_score")
    assert all(math.isnan(getattr(model, name)) for name in names)


def test_an_output_that_varies_in_one_run_is_modelled_without_a_warning(recwarn):
    mask, _ = problem()
    model = datamodels.fit(design(mask), np.eye(150)[3], datamodels.Options())
    assert model.num_scored_folds <= 1
    assert model.held_out_r2 <= 1
    assert not recwarn.list


def test_columns_that_never_vary_leave_the_mean():
    mask = np.zeros((40, 5), bool)
    mask[:, 0] = True
    model = datamodels.fit(design(mask), np.arange(40.0), datamodels.Options())
    assert model.intercept == 19.5
    assert math.isnan(model.penalty)


def test_folds_are_those_of_scikit_learn():
    for num_runs, num_folds in ((10, 5), (13, 4), (101, 7)):
        fold = datamodels.folds(num_runs, num_folds)
        parts = [test for _, test in sklearn.model_selection.KFold(num_folds).split(np.zeros(num_runs))]
        np.testing.assert_array_equal(np.concatenate(parts), np.argsort(fold, kind="stable"))
        assert np.bincount(fold).tolist() == [len(part) for part in parts]


def test_too_few_runs_are_refused():
    mask, output = problem(num_runs=9)
    with pytest.raises(errors.InvalidValueError, match="5 folds need 10 runs with outputs, there are 9"):
        datamodels.fit(design(mask), output, datamodels.Options())


def test_outputs_that_are_no_numbers_are_refused():
    mask, output = problem()
    output[3] = np.nan
    with pytest.raises(errors.InvalidValueError, match="1 values that are not finite, expected 150 finite numbers"):
        datamodels.fit(design(mask), output, datamodels.Options())


@pytest.mark.parametrize(
    ("name", "value"),
    [("num_lambdas", 1), ("num_folds", 1), ("lambda_ratio", 0), ("lambda_ratio", 1), ("tolerance", 0.5)],
)
def test_options_out_of_range_are_named(name, value):
    mask, output = problem()
    options = dataclasses.replace(datamodels.Options(), **{name: value})
    with pytest.raises(errors.InvalidValueError, match=f"{name}: got {value}, expected"):
        datamodels.fit_all(design(mask), output[:, np.newaxis], options)
