"""Influence functions against closed forms, refits, dense inverses, and against what is known to go wrong in them."""

import numpy as np
import pytest
import tensorflow as tf

from estimators import errors, examples, influence_functions, solvers
from estimators.curvature import operators
from estimators.derivatives import per_example, plans
from tests.estimators import linear_cases, models

_DAMPING = 0.1


@pytest.fixture(scope="module")
def mlp():
    return models.ALL["mlp"]()


@pytest.fixture(scope="module")
def truth(mlp):
    """(scores of the loss, of the margin) [7, 7] with the Gauss-Newton matrix and damping 0.1, written out."""
    plan = plans.make(mlp.target, (mlp.inputs, mlp.labels))
    curvature = operators.Curvature(plan, (mlp.inputs, mlp.labels), "gauss_newton")
    matrix = operators.explicit(curvature) + _DAMPING * np.eye(curvature.size)
    loss, margin = (per_example.make_gradients(plan, of)(mlp.inputs, mlp.labels).numpy() for of in per_example.OF)
    return -loss @ np.linalg.solve(matrix, loss.T) / 7, -loss @ np.linalg.solve(matrix, margin.T) / 7


def _fitted(case, solver="explicit", train=None, **options):
    train = (case.inputs, case.labels) if train is None else train
    if solver == "explicit":
        options = {"damping": _DAMPING, "curvature": "gauss_newton"} | options
    return influence_functions.InfluenceFunctions(case.target, solver, **options).fit(train)


@pytest.fixture(scope="module")
def fitted(mlp):
    return _fitted(mlp)


def test_ridge_regression_gives_leave_one_out_but_for_its_leverage():
    """Exact: -(1/n) e_i x_t H^-1 x_i / (1 - h_i), of which influence functions leave out 1 / (1 - h_i)."""
    ridge = linear_cases.ridge()
    fitted = influence_functions.InfluenceFunctions(ridge.target, "explicit").fit((ridge.x, ridge.y))
    found = fitted.scores((ridge.x, ridge.y), (ridge.x_test, ridge.y_test), of="measured")
    leverages = np.einsum("id,de,ie->i", ridge.x, np.linalg.inv(ridge.hessian), ridge.x) / len(ridge.x)
    for i in range(len(ridge.x)):
        exact = ridge.x_test @ (ridge.theta - ridge.without([i]))  # with minus without
        np.testing.assert_allclose(found.values[i] / (1 - leverages[i]), exact, rtol=1e-9)
    assert found.unit == "output"
    assert not found.lower_is_better
    assert (found.residuals < 1e-9).all()


def test_an_intercept_by_its_pseudo_inverse_gives_the_golden_values():
    """R = (1/n)(delta / p - 1), and close to exact leave-one-out; flipping the sign is a known mistake."""
    target, train, test = linear_cases.intercepts()
    with pytest.raises(errors.SolverError, match="1 of 3 eigenvalues that are zero"):
        influence_functions.InfluenceFunctions(target, "explicit").fit(train)
    fitted = influence_functions.InfluenceFunctions(target, "explicit", pseudo_inverse=True).fit(train)
    found = fitted.scores(train, test)
    expected = np.full((10, 3), -0.1)
    expected[:5, 0], expected[5:8, 1], expected[8:, 2] = 0.1, 0.7 / 3, 0.4
    for column in range(3):
        np.testing.assert_allclose(found.helpfulness(column), expected[:, column], atol=1e-12)
    exact = np.full((10, 3), -0.1053605)
    exact[:5, 0], exact[5:8, 1], exact[8:, 2] = 0.1177830, 0.3001046, 0.5877867
    assert np.corrcoef(-found.values.ravel(), exact.ravel())[0, 1] > 0.99
    np.testing.assert_allclose(fitted.self_scores(train), np.repeat([0.1, 0.7 / 3, 0.4], [5, 3, 2]), atol=1e-12)


def test_logistic_regression_correlates_with_exact_leave_one_out():
    target, train, test, weights = linear_cases.logistic()
    fitted = influence_functions.InfluenceFunctions(target, "explicit").fit(train)
    x, y, num = train[0], train[1][:, 0], len(train[0])

    def losses(rows, labels, w):
        return np.logaddexp(0.0, rows @ w) - labels * (rows @ w)

    rises, logits, own = [], [], []
    for i in range(num):
        left = np.delete(np.arange(num), i)
        refit = linear_cases.logistic_fit(x[left], y[left], 0.01, num, weights)
        rises.append(losses(test[0], test[1][:, 0], refit) - losses(test[0], test[1][:, 0], weights))
        logits.append(test[0] @ (weights - refit))
        own.append(losses(x[i], y[i], refit) - losses(x[i], y[i], weights))
    loss, logit = fitted.scores(train, test), fitted.scores(train, test, of="measured")
    assert np.corrcoef(-loss.values.ravel(), np.ravel(rises))[0, 1] > 0.99
    assert np.corrcoef(logit.values.ravel(), np.ravel(logits))[0, 1] > 0.99
    np.testing.assert_allclose(np.polyfit(np.ravel(logits), logit.values.ravel(), 1)[0], 1.0, atol=0.1)
    assert np.corrcoef(fitted.self_scores(train), own)[0, 1] > 0.99


_AGREEING = {
    "conjugate_gradient": {"damping": _DAMPING, "tolerance": 1e-11},
    "preconditioned by ekfac": {"damping": _DAMPING, "tolerance": 1e-11, "preconditioner": "ekfac"},
    "preconditioned by nystroem": {"damping": _DAMPING, "tolerance": 1e-11, "preconditioner": "nystroem", "rank": 10},
    # Batches of all examples leave no chance. A damping that the scale multiplies (0.1 * 50), or repeats that are
    # concatenated or added up instead of averaged, would be far off.
    "lissa": {
        "damp": _DAMPING,
        "scale": 50.0,
        "recursion_depth": 6000,
        "r": 2,
        "step_batch_size": 7,
        "curvature": "gauss_newton",
    },
    "arnoldi": {"damping": _DAMPING, "num_eigenvalues": 39, "complement": True, "curvature": "gauss_newton"},
    "nystroem": {"damping": _DAMPING, "rank": 39},
    "ekfac_neumann": {"damping": _DAMPING, "tolerance": 1e-8, "max_iterations": 2000},
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in ("lissa", "ekfac_neumann") else []) for n in _AGREEING]
)
def test_every_solver_with_all_it_needs_gives_the_dense_truth(name, mlp, truth):
    """Inverses of batches that are added up, or sums that are not over n, would not."""
    solver = "conjugate_gradient" if name.startswith("preconditioned") else name
    fitted = _fitted(mlp, solver, batch_size=3, **_AGREEING[name])
    found = fitted.scores((mlp.inputs, mlp.labels), (mlp.inputs, mlp.labels), of="measured")
    np.testing.assert_allclose(found.values, truth[1], atol=1e-5 * np.abs(truth[1]).max())
    assert found.converged.all()
    assert (found.residuals < 1e-4).all()


@pytest.mark.parametrize("solver", ["nystroem", "lanczos", "kfac", "ekfac", "identity", "conjugate_gradient"])
def test_self_scores_are_the_diagonal(solver, mlp):
    options = {} if solver == "identity" else {"damping": _DAMPING}
    if solver == "lanczos":  # whose default, the Hessian, is not positive at weights that were not trained
        options["curvature"] = "gauss_newton"
    fitted = _fitted(mlp, solver, **options)
    train = (mlp.inputs, mlp.labels)
    own = fitted.self_scores(train)
    np.testing.assert_allclose(own, -np.diag(fitted.scores(train, train).values), rtol=1e-4)
    assert (own >= 0).all()


def test_kronecker_factors_are_exact_where_the_curvature_is_a_product():
    case = models.ALL["transposed_dense"]()
    train = (np.repeat(case.inputs[:1], 7, axis=0), case.labels)
    exact = _fitted(case, train=train).scores(train, train)
    for solver in ("kfac", "ekfac"):
        fitted = _fitted(case, solver, train, damping=_DAMPING, labels="expected", check=True)
        found = fitted.scores(train, train)
        np.testing.assert_allclose(found.values, exact.values, atol=1e-9)
        assert (found.residuals < 1e-8).all()


def test_scores_are_those_of_the_dense_inverse_symmetric_and_harmless_to_itself(mlp, fitted, truth):
    train = (mlp.inputs, mlp.labels)
    loss, margin = fitted.scores(train, train), fitted.scores(train, train, of="measured")
    np.testing.assert_allclose(loss.values, truth[0], atol=1e-12)
    np.testing.assert_allclose(margin.values, truth[1], atol=1e-12)
    np.testing.assert_allclose(loss.values, loss.values.T, atol=1e-12)
    np.testing.assert_allclose(fitted.self_scores(train), -np.diag(truth[0]), atol=1e-12)
    assert (fitted.self_scores(train) >= 0).all()
    assert loss.lower_is_better
    assert loss.unit == "loss"
    assert margin.unit == "margin"
    assert not margin.lower_is_better


def test_a_large_damping_leaves_inner_products(mlp):
    train = (mlp.inputs, mlp.labels)
    damped = _fitted(mlp, damping=1e9).scores(train, train).values
    plain = _fitted(mlp, "identity").scores(train, train).values
    rows = per_example.make_gradients(plans.make(mlp.target, train))(*train).numpy()
    np.testing.assert_allclose(plain, -rows @ rows.T / 7, atol=1e-13)
    np.testing.assert_allclose(1e9 * damped, plain, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("batch_size", [1, 2, 7, 100])
def test_batches_and_memory_change_nothing(batch_size, mlp, truth):
    # 39 parameters of 8 bytes: 0.02 MB is a few at a time.
    fitted = _fitted(mlp, batch_size=batch_size, memory_limit_mb=100.0 if batch_size == 7 else 0.02)
    train, seen = (mlp.inputs, mlp.labels), []
    found = fitted.scores(train, train, progress=lambda done, total: seen.append((done, total)))
    np.testing.assert_allclose(found.values, truth[0], atol=1e-12)
    np.testing.assert_allclose(fitted.self_scores(train), -np.diag(truth[0]), atol=1e-12)
    assert seen[-1][0] == seen[-1][1]
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_many_test_examples_are_scored_block_by_block(mlp, truth):
    """In columns of their own, with their own residuals; the last block is smaller."""
    fitted = _fitted(mlp, batch_size=3, memory_limit_mb=0.01)
    order = np.arange(20) % 7
    test, seen = (mlp.inputs[order], mlp.labels[order]), []
    assert 1 < fitted.blocks.test < 10
    train = (mlp.inputs, mlp.labels)
    found = fitted.scores(train, test, of="measured", progress=lambda done, total: seen.append((done, total)))
    np.testing.assert_allclose(found.values, truth[1][:, order], atol=1e-12)
    assert found.residuals.shape == (20,)
    assert (found.residuals < 1e-9).all()
    assert seen[-1][0] == seen[-1][1] == 7 * -(-20 // fitted.blocks.test)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_residuals_tell_how_far_a_model_of_the_curvature_is_from_it(mlp):
    train = (mlp.inputs, mlp.labels)
    fitted = _fitted(mlp, "kfac", damping=_DAMPING, check=True)
    (found,) = fitted.solutions((mlp.inputs[:2], mlp.labels[:2]))
    plan = plans.make(mlp.target, train)
    rows = per_example.make_gradients(plan)(mlp.inputs[:2], mlp.labels[:2]).numpy()
    matrix = operators.explicit(operators.Curvature(plan, train, "gauss_newton")) + _DAMPING * np.eye(39)
    expected = np.linalg.norm(found.values @ matrix - rows, axis=1) / np.linalg.norm(rows, axis=1)
    np.testing.assert_allclose(found.residuals, expected, rtol=1e-8)
    assert (expected > 0.01).all()
    np.testing.assert_array_equal(fitted.scores(train, (mlp.inputs[:2], mlp.labels[:2])).residuals, found.residuals)
    assert np.isnan(_fitted(mlp, "kfac", damping=_DAMPING).scores(train, train).residuals).all()


def test_order_changes_order_only(mlp, fitted, truth):
    rng = np.random.default_rng(3)
    first, second = rng.permutation(7), rng.permutation(7)[:5]
    data = examples.Examples(mlp.inputs, mlp.labels, 10 * np.arange(7))
    refitted = _fitted(mlp, train=data.take(first))
    for one in (fitted, refitted):
        found = one.scores(data.take(first), data.take(second))
        np.testing.assert_allclose(found.values, truth[0][np.ix_(first, second)], atol=1e-12)
        np.testing.assert_array_equal(found.train_ids, 10 * first)
        np.testing.assert_array_equal(found.test_ids, 10 * second)


def test_some_training_examples_score_as_among_all(mlp, fitted, truth):
    """The number of examples is that of the curvature, not of the examples that are scored."""
    some = (mlp.inputs[2:5], mlp.labels[2:5])
    np.testing.assert_allclose(fitted.scores(some, some).values, truth[0][2:5, 2:5], atol=1e-12)
    np.testing.assert_allclose(fitted.set_scores(some, some), truth[0][2:5, 2:5].mean(axis=1), atol=1e-12)
    np.testing.assert_allclose(fitted.self_scores(some), -np.diag(truth[0])[2:5], atol=1e-12)


def test_scores_fill_what_they_are_given(mlp, fitted, truth, tmp_path):
    out = np.lib.format.open_memmap(tmp_path / "scores.npy", "w+", np.float32, (7, 3))
    found = fitted.scores((mlp.inputs, mlp.labels), (mlp.inputs[:3], mlp.labels[:3]), out=out)
    assert found.values is out
    np.testing.assert_allclose(out, truth[0][:, :3], rtol=1e-5)
    with pytest.raises(errors.MismatchError, match=r"expected a writeable array of floats \(7, 7\)"):
        fitted.scores((mlp.inputs, mlp.labels), (mlp.inputs, mlp.labels), out=out)


def test_a_set_of_test_examples_takes_one_solution(mlp, fitted, truth):
    train = (mlp.inputs, mlp.labels)
    found = fitted.set_scores(train, (mlp.inputs[:4], mlp.labels[:4]), of="measured")
    np.testing.assert_allclose(found, truth[1][:, :4].mean(axis=1), atol=1e-12)


def test_three_lines_give_effects_of_removal_and_their_rankings(mlp, truth):
    train = (mlp.inputs, mlp.labels)
    influences, harmful, helpful = influence_functions.influence_on(
        mlp.target, train, (mlp.inputs[2], mlp.labels[2]), "explicit", damping=_DAMPING, curvature="gauss_newton"
    )
    np.testing.assert_allclose(influences, -truth[0][:, 2], atol=1e-12)
    assert helpful[0] == 2  # itself
    np.testing.assert_array_equal(harmful, np.argsort(influences))
    np.testing.assert_array_equal(helpful, np.argsort(-influences))


def test_weight_decay_belongs_to_the_curvature():
    ridge = linear_cases.ridge(decay=2.0)
    fitted = influence_functions.InfluenceFunctions(ridge.target, "explicit").fit((ridge.x, ridge.y))
    e = ridge.x @ ridge.theta - ridge.y
    expected = -e[:, None] * (ridge.x @ np.linalg.solve(ridge.hessian, ridge.x_test.T)) / len(e)
    found = fitted.scores((ridge.x, ridge.y), (ridge.x_test, ridge.y_test), of="measured")
    np.testing.assert_allclose(found.values, expected, atol=1e-12)


def test_misuse_is_refused(mlp, fitted):
    train = (mlp.inputs, mlp.labels)
    with pytest.raises(errors.InvalidArgumentError, match=r"call fit\(train\) first"):
        influence_functions.InfluenceFunctions(mlp.target).scores(train, train)
    with pytest.raises(errors.InvalidArgumentError, match="of='margin': expected one of loss, measured"):
        fitted.scores(train, train, of="margin")
    for one in ((train, (mlp.inputs, mlp.labels + 5)), ((mlp.inputs, mlp.labels + 5), train)):
        with pytest.raises(errors.InvalidArgumentError, match="the model has 3 classes"):
            fitted.scores(*one)
    broken = mlp.inputs.copy()
    broken[4, 0] = np.nan
    for one in ((train, (broken, mlp.labels)), ((broken, mlp.labels), train)):
        with pytest.raises(errors.NotFiniteError, match="the gradient of example 4 is not finite"):
            fitted.scores(*one)
    with pytest.raises(errors.InvalidArgumentError, match=r"memory_limit_mb 0.001: vectors of 39 parameters"):
        influence_functions.InfluenceFunctions(mlp.target, memory_limit_mb=0.001)
    with pytest.raises(errors.InvalidArgumentError, match="batch_size 0"):
        influence_functions.InfluenceFunctions(mlp.target, batch_size=0)
    with pytest.raises(errors.InvalidArgumentError, match="solver 'newton': expected one of explicit"):
        influence_functions.InfluenceFunctions(mlp.target, "newton")
    with pytest.raises(
        errors.InvalidArgumentError, match=r"options \['damp'\] of solver ekfac: expected some of damping"
    ):
        influence_functions.InfluenceFunctions(mlp.target, "ekfac", damp=0.1)
    with pytest.raises(errors.InvalidArgumentError, match=r"options \['damping'\] beside settings of ekfac"):
        influence_functions.InfluenceFunctions(mlp.target, solvers.Ekfac(), damping=0.1)
    with pytest.raises(errors.InvalidArgumentError, match="preconditioner 'jacobi': expected none"):
        influence_functions.InfluenceFunctions(mlp.target, "conjugate_gradient", preconditioner="jacobi")


def test_weights_that_have_changed_are_noticed():
    case = models.ALL["transposed_dense"]()
    fitted, train = _fitted(case), (case.inputs, case.labels)
    case.target.variables[0].assign_add(tf.ones([3, 5], tf.float64))
    with pytest.raises(errors.MismatchError, match=r"the weights have changed since fit\(train\)"):
        fitted.self_scores(train)
