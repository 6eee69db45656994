"""TRAK against closed forms and refitted models."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from estimators import errors, examples, targets, trak
from estimators.derivatives import per_example, plans
from estimators.projections import projected_gradients
from tests.estimators import models

_EXACT = projected_gradients.Config("none")


def _fit_logistic(features, decay, start=None, num_steps=25):
    """The theta of the least sum of log(1 + exp(-features theta)) + decay / 2 |theta|^2, by Newton's method."""
    theta = np.zeros(features.shape[1]) if start is None else start
    for _ in range(num_steps):
        p = 1 / (1 + np.exp(-features @ theta))
        hessian = (features * (p * (1 - p))[:, None]).T @ features + decay * np.eye(len(theta))
        step = np.linalg.solve(hessian, features.T @ (1 - p) - decay * theta)
        theta = theta + step
        if np.abs(step).max() < 1e-9:
            break
    return theta


def _digits(num_train, num_test, flip=0):
    """Two classes that are hard to tell apart: (train, test, positions of flipped labels), pixels from 0 to 1."""
    from sklearn import datasets

    pixels, numbers = datasets.load_digits(return_X_y=True)
    chosen = np.random.default_rng(0).permutation(np.flatnonzero(np.isin(numbers, (3, 8))))[: num_train + num_test]
    inputs, labels = pixels[chosen] / 16, (numbers[chosen] == 8).astype(np.int64)
    train_labels = labels[:num_train].copy()
    flipped = np.random.default_rng(1).choice(num_train, flip, replace=False)
    train_labels[flipped] = 1 - train_labels[flipped]
    return (inputs[:num_train], train_labels), (inputs[num_train:], labels[num_train:]), flipped


class _Logistic:
    """Two-class logistic regression [64, 2] at its optimum, and what changes when examples are left out."""

    def __init__(self, num_train=120, num_test=40, decay=0.1, flip=0):
        self.train, self.test, self.flipped = _digits(num_train, num_test, flip)
        self.decay = decay * num_train  # of the sum of losses
        self.features, self.test_features = _margin_features(*self.train), _margin_features(*self.test)
        self.theta = _fit_logistic(self.features, self.decay)
        self.module = tf.Module()
        self.module.kernel = tf.Variable(self.theta.reshape(2, 64).T)
        target = targets.of(
            self.module, predict=lambda x: x @ self.module.kernel, measured="margin", weight_decay=decay
        )
        self.plan = plans.make(target, self.train)
        self.probabilities = 1 / (1 + np.exp(-self.features @ self.theta))

    def closed_form(self, *, weighted=True, ridge=None, mask=None):
        """[num_train, num_test] (1 - p_i) phi_i^T (Phi^T W Phi + ridge)^-1 phi_t."""
        p = self.probabilities
        weights = (p * (1 - p) if weighted else np.ones_like(p)) * (1.0 if mask is None else mask)
        ridge = self.decay if ridge is None else ridge
        gram = (self.features * weights[:, None]).T @ self.features + ridge * np.eye(128)
        return (1 - p)[:, None] * (self.features @ np.linalg.solve(gram, self.test_features.T))

    def left_out(self, num):
        """[num, num_test] margins of the model trained on all, minus those without each of the first examples."""
        # The two columns of the optimum are opposites, so that half of the numbers say all: |theta|^2 = 2 |half|^2.
        halves, test_halves = (np.sqrt(2) * f[:, 64:] for f in (self.features, self.test_features))
        whole, found = np.sqrt(2) * self.theta[64:], []
        for i in range(num):
            theta = _fit_logistic(np.delete(halves, i, axis=0), self.decay, whole)
            found.append(test_halves @ (whole - theta))
        return np.array(found)


def _margin_features(inputs, labels):
    """[N, 128], the gradient of x^T (w_y - w_other) by (w_0, w_1)."""
    signs = 2.0 * labels - 1.0
    return np.concatenate([-signs[:, None] * inputs, signs[:, None] * inputs], axis=1)


@pytest.fixture(name="logistic", scope="module")
def _logistic():
    return _Logistic()


def _scores(logistic, **options):
    config = trak.Config(**({"projection": _EXACT, "relative_ridge": 0.0} | options))
    return trak.Trak(logistic.plan, config).fit(logistic.train).scores(logistic.train, logistic.test).values


def test_without_projection_it_is_the_closed_form(logistic):
    np.testing.assert_allclose(_scores(logistic), logistic.closed_form(), rtol=1e-9, atol=1e-12)
    published = _scores(logistic, scaling="published", ridge=0.3)
    np.testing.assert_allclose(published, logistic.closed_form(weighted=False, ridge=0.3), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("ridges", [(0.5, 0.0), (0.0, 0.2), (0.5, 0.2)])
def test_ridges_are_added_to_eigenvalues(logistic, ridges):
    gram = np.trace((logistic.features * _weights(logistic)[:, None]).T @ logistic.features)
    expected = logistic.closed_form(ridge=ridges[0] + ridges[1] * gram / 128)
    found = _scores(logistic, ridge=ridges[0], relative_ridge=ridges[1])
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def _weights(logistic):
    return logistic.probabilities * (1 - logistic.probabilities)


def test_an_orthogonal_projection_changes_nothing(logistic):
    projection = projected_gradients.Config("hadamard", dimension=128)
    np.testing.assert_allclose(_scores(logistic, projection=projection), logistic.closed_form(), rtol=1e-9, atol=1e-12)


def test_scores_are_the_margins_that_leaving_out_changes(logistic):
    """Positive: with the example the margin is higher. In its unit, but for the example's leverage."""
    truth = logistic.left_out(40)
    found, corrected = _scores(logistic)[:40], _scores(logistic, leverage=True)[:40]
    assert np.corrcoef(truth.ravel(), found.ravel())[0, 1] > 0.999
    assert 1.0 < np.sum(truth * found) / np.sum(found**2) < 1.15
    assert np.corrcoef(truth.ravel(), corrected.ravel())[0, 1] > 0.9999
    assert abs(np.sum(truth * corrected) / np.sum(corrected**2) - 1) < 0.005
    # The published scaling orders examples otherwise and has no unit.
    published = _scores(logistic, scaling="published", ridge=1e-3)[:40]
    assert np.corrcoef(truth.ravel(), published.ravel())[0, 1] < 0.99


def test_projections_come_near_the_closed_form_with_their_dimension(logistic):
    truth, correlations = logistic.closed_form(), []
    for dimension in (32, 512):
        projection = projected_gradients.Config("signs", dimension=dimension, seed=3)
        correlations.append(np.corrcoef(_scores(logistic, projection=projection).ravel(), truth.ravel())[0, 1])
    assert correlations[0] < 0.95
    assert correlations[1] > 0.99


def test_more_members_are_nearer_to_the_closed_form(logistic):
    """Members differ in nothing but their projections, whose errors average out."""
    truth, config = logistic.closed_form(), trak.Config(projected_gradients.Config("signs", dimension=32))
    correlations = []
    for num in (1, 20):
        found = trak.Trak(logistic.plan, config, load=lambda k: None, num_models=num).fit(logistic.train)
        correlations.append(
            np.corrcoef(found.scores(logistic.train, logistic.test).values.ravel(), truth.ravel())[0, 1]
        )
    assert correlations[1] > correlations[0] + 0.05


def _regression(num=20, size=4, decay=0.05):
    """Ridge regression at the optimum of the mean loss + decay / 2 |theta|^2: (plan, train, test, solve)."""
    rng = np.random.default_rng(0)
    inputs, labels = rng.normal(size=(num, size)), rng.normal(size=num)

    def solve(mask):
        some = inputs[mask]
        return np.linalg.solve(some.T @ some + decay * num * np.eye(size), some.T @ labels[mask])

    module = tf.Module()
    module.kernel = tf.Variable(solve(np.ones(num, bool))[:, None])
    target = targets.of(
        module, predict=lambda x: x @ module.kernel, loss="squared_error", measured="output", weight_decay=decay
    )
    test = (rng.normal(size=(5, size)), np.zeros(5))
    return module, plans.make(target, (inputs, labels)), (inputs, labels), test, solve


def test_for_ridge_regression_the_corrected_scores_are_exact():
    module, plan, train, test, solve = _regression()
    config = trak.Config(_EXACT, relative_ridge=0.0, leverage=True)
    found = trak.Trak(plan, config).fit(train).scores(train, test).values
    everything = np.ones(20, bool)
    for i in range(20):
        mask = everything.copy()
        mask[i] = False
        np.testing.assert_allclose(found[i], test[0] @ (solve(everything) - solve(mask)), rtol=1e-9, atol=1e-12)
    assert module.kernel.shape == (4, 1)


def test_examples_outside_a_model_s_subset_are_scored_by_adding_them():
    module, plan, train, test, solve = _regression()
    mask = np.random.default_rng(2).random(20) < 0.5
    module.kernel.assign(solve(mask)[:, None])
    config = trak.Config(_EXACT, ridge=0.05 * 20, relative_ridge=0.0, leverage=True)
    found = trak.Trak(plan, config).fit(train, masks=mask[None]).scores(train, test).values
    for i in range(20):
        without, with_it = mask.copy(), mask.copy()
        without[i], with_it[i] = False, True
        np.testing.assert_allclose(found[i], test[0] @ (solve(with_it) - solve(without)), rtol=1e-9, atol=1e-12)


def test_the_ridge_follows_the_examples_that_a_model_was_trained_on():
    """The objective of a subset is the sum over it + weight decay times its size / 2 |theta|^2."""
    _, plan, train, test, _ = _regression(decay=0.05)
    mask = np.arange(20) < 8
    options = {"projection": _EXACT, "relative_ridge": 0.0}
    found, expected, other = (
        trak.Trak(plan, trak.Config(**options, ridge=ridge)).fit(train, masks=mask[None]).scores(train, test).values
        for ridge in (None, 0.05 * 8, 0.05 * 20)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert np.abs(found - other).max() > 1e-3


def test_ensembles_average_products_and_slopes_over_masked_models():
    """Two models trained on halves, loaded into one module: mean of phi K^-1 phi times mean of q."""
    module, plan, train, test, solve = _regression()
    masks = np.random.default_rng(2).random((2, 20)) < 0.6
    kernels = [solve(mask)[:, None] for mask in masks]
    config = trak.Config(_EXACT, ridge=0.3, relative_ridge=0.0)
    both = trak.Trak(plan, config, load=lambda k: module.kernel.assign(kernels[k]), num_models=2)
    found = both.fit(train, masks).scores(train, test).values
    inputs, labels = train
    products = [inputs @ np.linalg.solve(inputs[mask].T @ inputs[mask] + 0.3 * np.eye(4), test[0].T) for mask in masks]
    slopes = [labels - inputs @ kernel[:, 0] for kernel in kernels]
    np.testing.assert_allclose(found, np.mean(products, 0) * np.mean(slopes, 0)[:, None], rtol=1e-9, atol=1e-12)
    modules = []
    for kernel in kernels:
        module.kernel.assign(kernel)
        modules.append(_copied(module, plan, train))
    several = trak.Trak(modules, config).fit(train, masks)
    np.testing.assert_allclose(several.scores(train, test).values, found, rtol=1e-9, atol=1e-12)


def _copied(module, plan, train):
    copy = tf.Module()
    copy.kernel = tf.Variable(module.kernel)
    target = targets.of(copy, predict=lambda x: x @ copy.kernel, loss="squared_error", measured="output")
    return plans.make(dataclasses.replace(target, weight_decay=plan.target.weight_decay), train)


def test_one_compiled_function_serves_all_models_of_a_zoo(logistic):
    config = trak.Config(projected_gradients.Config("signs", dimension=16))
    found = trak.Trak(logistic.plan, config, load=lambda k: None, num_models=3, batch_size=50).fit(logistic.train)
    found.scores(logistic.train, logistic.test)
    assert found._compiled[0].experimental_get_tracing_count() == 3  # batches of 50, of 20 left, of 40 to test


@pytest.mark.parametrize("kind", ["signs", "two_sided", "sparse_signs"])
def test_batches_and_order_change_nothing(kind):
    case = models.ALL["mlp"]()
    plan = plans.make(case.target, (case.inputs, case.labels))
    config = trak.Config(projected_gradients.Config(kind, dimension=9))
    train = examples.Examples(case.inputs, case.labels)
    test = train.take(np.arange(4))
    truth = trak.Trak(plan, config, batch_size=100).fit(train).scores(train, test).values
    assert truth.shape == (7, 4)
    for size in (1, 3):
        found = trak.Trak(plan, config, batch_size=size).fit(train).scores(train, test).values
        np.testing.assert_allclose(found, truth, rtol=1e-8, atol=1e-11)
    order = np.random.default_rng(0).permutation(7)
    turned = train.take(order)
    found = trak.Trak(plan, config).fit(turned).scores(turned, test.take(np.array([3, 1, 0, 2]))).values
    np.testing.assert_allclose(found[:, [2, 1, 3, 0]], truth[order], rtol=1e-8, atol=1e-11)


def test_kept_features_and_given_arrays_change_nothing(logistic):
    projection = projected_gradients.Config("signs", dimension=40)
    truth = _scores(logistic, projection=projection)
    np.testing.assert_array_equal(_scores(logistic, projection=projection, keep_features=True), truth)
    config = trak.Config(projection, relative_ridge=0.0)
    out = np.full((120, 40), np.nan, np.float32)
    found = trak.Trak(logistic.plan, config).fit(logistic.train).scores(logistic.train, logistic.test, out=out).values
    assert found is out
    np.testing.assert_allclose(out, truth, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("leverage", [False, True])
def test_self_scores_are_the_diagonal(logistic, leverage):
    config = trak.Config(projected_gradients.Config("signs", dimension=40), leverage=leverage)
    fitted = trak.Trak(logistic.plan, config).fit(logistic.train)
    found = fitted.self_scores(logistic.train)
    np.testing.assert_allclose(found, np.diag(fitted.scores(logistic.train, logistic.train).values), rtol=1e-9)
    assert (found >= 0).all()


def test_wrong_labels_hurt_others_and_hold_themselves():
    """Among 160 digits of which 16 have the wrong label: they lower margins of clean digits, and score themselves."""
    noisy = _Logistic(num_train=160, num_test=60, flip=16)
    fitted = trak.Trak(noisy.plan, trak.Config(projected_gradients.Config("signs", dimension=512)))
    fitted.fit(noisy.train)
    is_flipped = np.isin(np.arange(160), noisy.flipped)
    on_others = fitted.scores(noisy.train, noisy.test).values.mean(axis=1)
    assert np.mean(on_others[is_flipped] < 0) > 0.9 < np.mean(on_others[~is_flipped] > 0)
    for scores in (-on_others, fitted.self_scores(noisy.train)):
        auc = np.mean(scores[is_flipped][:, None] > scores[~is_flipped][None])
        assert auc > 0.95


def test_multi_class_margins_are_those_of_the_target():
    """Ten classes: features are gradients of the margin, q is one minus the probability of the label."""
    case = models.ALL["mlp"]()
    plan = plans.make(case.target, (case.inputs, case.labels))
    config = trak.Config(_EXACT, scaling="published", ridge=0.1, relative_ridge=0.0)
    found = (
        trak.Trak(plan, config)
        .fit((case.inputs, case.labels))
        .scores((case.inputs, case.labels), (case.inputs, case.labels))
        .values
    )
    phi = per_example.make_gradients(plan, "measured")(case.inputs, case.labels).numpy()
    p = tf.nn.softmax(case.target.predict(case.inputs)).numpy()[np.arange(7), case.labels]
    expected = (1 - p)[:, None] * (phi @ np.linalg.solve(phi.T @ phi + 0.1 * np.eye(39), phi.T))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_progress_is_told(logistic):
    seen = []
    found = trak.Trak(
        logistic.plan, trak.Config(_EXACT), load=lambda k: None, num_models=2, progress=lambda *done: seen.append(done)
    )
    found.fit(logistic.train)
    assert seen == [(1, 2), (2, 2)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scaling": "none"}, "scaling 'none': expected one of output, published"),
        ({"ridge": -1.0}, "ridge -1.0: must be a number from 0 up"),
        ({"relative_ridge": np.nan}, "relative_ridge nan: must be a number from 0 up"),
        ({"leverage": True, "scaling": "published"}, "leverage with the scaling 'published'"),
    ],
)
def test_configs_that_cannot_be_are_refused(options, message):
    with pytest.raises(errors.InvalidArgumentError, match=message):
        trak.Config(**options)


def test_models_and_masks_that_cannot_be_are_refused(logistic):
    plan, train = logistic.plan, logistic.train
    for options in ({"load": print}, {"num_models": 2}, {"load": print, "num_models": 0}):
        with pytest.raises(errors.InvalidArgumentError, match="give plans alone, or one plan with a function load"):
            trak.Trak(plan, **options)
    with pytest.raises(errors.InvalidArgumentError, match="no plans: at least one model"):
        trak.Trak([])
    with pytest.raises(errors.InvalidTargetError, match="loss cross_entropy and measured output loss: TRAK needs"):
        trak.Trak(dataclasses.replace(plan, target=targets.of(logistic.module, predict=plan.target.predict)))
    fitted = trak.Trak(plan, trak.Config(_EXACT))
    with pytest.raises(errors.MismatchError, match=r"masks of shape \(120,\): expected \[1, 120\]"):
        fitted.fit(train, np.ones(120, bool))
    with pytest.raises(errors.InvalidArgumentError, match="masks of dtype float64: expected bool"):
        fitted.fit(train, np.ones((1, 120)))
    with pytest.raises(errors.InvalidArgumentError, match="masks leave model 0 without training examples"):
        fitted.fit(train, np.zeros((1, 120), bool))


def test_what_cannot_be_scored_is_refused(logistic):
    plan, train, test = logistic.plan, logistic.train, logistic.test
    fitted = trak.Trak(plan, trak.Config(_EXACT))
    with pytest.raises(errors.InvalidArgumentError, match=r"nothing was fitted; call fit\(train\) first"):
        fitted.scores(train, test)
    fitted.fit(train)
    with pytest.raises(errors.MismatchError, match="40 training examples whose ids are not those of the 120"):
        fitted.self_scores(test)
    for out in (np.zeros((40, 120)), np.zeros((120, 40), int)):
        with pytest.raises(errors.MismatchError, match=r"floats \(120, 40\)"):
            fitted.scores(train, test, out=out)
    with pytest.raises(errors.SolverError, match="the Gram matrix of 128 dimensions is singular with ridge 0"):
        trak.Trak(plan, trak.Config(_EXACT, ridge=0.0, relative_ridge=0.0)).fit(train)
    poisoned = train[0].copy()
    poisoned[50] = np.nan
    with pytest.raises(errors.NotFiniteError, match="outputs of model 0 are not finite among examples 0 to 119"):
        fitted.fit((poisoned, train[1]))


def test_weight_decay_that_differs_needs_a_ridge():
    case = models.ALL["mlp"]()
    target = dataclasses.replace(case.target, weight_decay=(0.0, 0.1, 0.0, 0.1))
    plan = plans.make(target, (case.inputs, case.labels))
    with pytest.raises(errors.InvalidArgumentError, match=r"weight decay differs between parameters \(0.0, 0.1\)"):
        trak.Trak(plan, trak.Config(_EXACT)).fit((case.inputs, case.labels))
    trak.Trak(plan, trak.Config(_EXACT, ridge=0.1)).fit((case.inputs, case.labels))


def test_scores_are_labelled(logistic):
    found = trak.Trak(logistic.plan, trak.Config(_EXACT)).fit(logistic.train).scores(logistic.train, logistic.test)
    assert (found.unit, found.lower_is_better) == ("margin", False)
    assert found.method == "TRAK of 1 model"
    assert found.train_ids.tolist() == list(range(120))
    published = trak.Config(_EXACT, scaling="published", ridge=0.3)
    found = trak.Trak(logistic.plan, published).fit(logistic.train).scores(logistic.train, logistic.test)
    assert found.unit.startswith("arbitrary")


def test_other_weights_than_those_that_were_fitted_are_refused(logistic):
    fitted = trak.Trak(logistic.plan, trak.Config(_EXACT)).fit(logistic.train)
    variable = logistic.plan.target.variables[0]
    before = variable.numpy()
    try:
        variable.assign(before + 1e-3)
        for compute in (
            lambda: fitted.scores(logistic.train, logistic.test),
            lambda: fitted.self_scores(logistic.train),
        ):
            with pytest.raises(errors.MismatchError, match="weights of model 0 are not those that were fitted"):
                compute()
    finally:
        variable.assign(before)


def test_what_was_fitted_is_stored_and_taken_again(logistic, tmp_path):
    config = trak.Config(_EXACT)
    fitted = trak.Trak(logistic.plan, config).fit(logistic.train)
    truth = fitted.scores(logistic.train, logistic.test).values
    fitted.save(tmp_path / "trak")
    again = trak.Trak(logistic.plan, config).load(tmp_path / "trak", logistic.train)
    np.testing.assert_array_equal(again.scores(logistic.train, logistic.test).values, truth)
    np.testing.assert_array_equal(again.self_scores(logistic.train), fitted.self_scores(logistic.train))
    with pytest.raises(errors.InvalidArgumentError, match="is there already"):
        fitted.save(tmp_path / "trak")
    with pytest.raises(errors.InvalidArgumentError, match="nothing was fitted"):
        trak.Trak(logistic.plan, config).save(tmp_path / "other")


def test_what_is_stored_of_something_else_is_refused(logistic, tmp_path):
    trak.Trak(logistic.plan, trak.Config(_EXACT)).fit(logistic.train).save(tmp_path / "trak")
    others = {
        "leverage": (trak.Config(_EXACT, leverage=True), logistic.train, None),
        "examples": (trak.Config(_EXACT), (logistic.train[0] + 1.0, logistic.train[1]), None),
        "masks": (trak.Config(_EXACT), logistic.train, np.arange(120)[None] > 0),
    }
    for name, (config, train, masks) in others.items():
        with pytest.raises(errors.MismatchError, match=f"stored for {name} "):
            trak.Trak(logistic.plan, config).load(tmp_path / "trak", train, masks)
    (tmp_path / "trak" / "root-0.npy").write_bytes(b"")
    with pytest.raises(errors.DamagedArtifactError, match=r"root-0\.npy"):
        trak.Trak(logistic.plan, trak.Config(_EXACT)).load(tmp_path / "trak", logistic.train)
