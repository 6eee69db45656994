"""Every solver against dense inverses in float64, and against what is known to go wrong."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from estimators import errors, targets
from estimators.curvature import conjugate_gradient, explicit, krylov, lissa, nystroem, operators, solutions
from estimators.derivatives import plans
from tests.estimators import models

_P = 40


def _matrix(eigenvalues, seed=0):
    basis = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(eigenvalues),) * 2))[0]
    return (basis * eigenvalues) @ basis.T


def _positive(dtype=np.float64):
    return _matrix(np.logspace(1, -3, _P)).astype(dtype)


def _vectors(num=5, size=_P, dtype=np.float64):
    return np.random.default_rng(1).normal(size=(num, size)).astype(dtype)


def _solvers(matrix, damping):
    operator = operators.DenseOperator(matrix)
    return {
        "explicit": explicit.ExplicitSolver(operator, damping),
        "conjugate_gradient": conjugate_gradient.ConjugateGradientSolver(operator, damping, tolerance=1e-11),
        "preconditioned": conjugate_gradient.ConjugateGradientSolver(
            operator, damping, tolerance=1e-11, preconditioner=nystroem.NystroemSolver(operator, damping, rank=10)
        ),
        "lanczos": krylov.LanczosSolver(operator, damping, num_eigenvalues=_P, num_steps=_P),
        "nystroem": nystroem.NystroemSolver(operator, damping, rank=_P),
    }


@pytest.mark.parametrize("name", ["explicit", "conjugate_gradient", "preconditioned", "lanczos", "nystroem"])
@pytest.mark.parametrize("damping", [0.1, 1e-3])
def test_solvers_with_all_they_need_give_the_inverse(name, damping):
    matrix, vectors = _positive(), _vectors()
    found = _solvers(matrix, damping)[name].solve(tf.constant(vectors))
    truth = np.linalg.solve(matrix + damping * np.eye(_P), vectors.T).T
    np.testing.assert_allclose(found.values, truth, rtol=0, atol=1e-6 * np.abs(truth).max())
    assert found.converged.all()
    assert (found.residuals < 1e-6).all()


@pytest.mark.parametrize("num", [1, 7, 60])
def test_conjugate_gradients_reach_their_tolerance_in_float32(num):
    """Also for more right-hand sides than parameters, repeated ones, and zeros."""
    matrix = _positive(np.float32)
    vectors = _vectors(num, dtype=np.float32)
    vectors[-1] = 0.0
    vectors[num // 2] = vectors[0]
    solver = conjugate_gradient.ConjugateGradientSolver(operators.DenseOperator(matrix), 0.1, tolerance=1e-5)
    found = solver.solve(tf.constant(vectors))
    true = np.linalg.norm(found.values.numpy() @ (matrix + 0.1 * np.eye(_P)) - vectors, axis=1)
    assert found.converged.all()
    assert (true <= 1.1e-5 * np.linalg.norm(vectors, axis=1) + 1e-12).all()
    np.testing.assert_array_equal(found.values[-1], 0.0)


def test_a_block_takes_fewer_rounds_than_one_right_hand_side():
    operator = operators.DenseOperator(_positive())
    rounds = [
        conjugate_gradient.ConjugateGradientSolver(operator, 1e-3, tolerance=1e-8, block=block)
        .solve(tf.constant(_vectors(16)))
        .num_iterations
        for block in (16, 1)
    ]
    assert rounds[0] < 0.5 * rounds[1]


def test_a_preconditioner_saves_rounds():
    operator = operators.DenseOperator(_positive())
    options = [None, nystroem.NystroemSolver(operator, 1e-3, rank=20)]
    rounds = [
        conjugate_gradient.ConjugateGradientSolver(operator, 1e-3, tolerance=1e-8, preconditioner=option)
        .solve(tf.constant(_vectors(1)))
        .num_iterations
        for option in options
    ]
    assert rounds[1] < 0.7 * rounds[0]


def test_what_has_not_converged_says_so():
    solver = conjugate_gradient.ConjugateGradientSolver(
        operators.DenseOperator(_positive()), 1e-3, tolerance=1e-10, max_iterations=2
    )
    found = solver.solve(tf.constant(_vectors(2)))
    assert not found.converged.any()
    assert found.num_iterations == 2
    true = np.linalg.norm(found.values.numpy() @ (_positive() + 1e-3 * np.eye(_P)) - _vectors(2), axis=1)
    np.testing.assert_allclose(found.residuals, true / np.linalg.norm(_vectors(2), axis=1), rtol=1e-6)


def test_right_hand_sides_that_are_no_numbers_are_refused():
    vectors = _vectors()
    vectors[1, 3] = np.nan
    solver = conjugate_gradient.ConjugateGradientSolver(operators.DenseOperator(_matrix(np.ones(_P))), 0.1)
    with pytest.raises(errors.NotFiniteError, match="a right-hand side is not finite"):
        solver.solve(tf.constant(vectors))


def test_negative_curvature_is_found_by_what_cannot_stand_it():
    matrix = _matrix(np.linspace(-0.5, 1.0, _P))
    operator = operators.DenseOperator(matrix)
    with pytest.raises(errors.SolverError, match="negative along a direction"):
        conjugate_gradient.ConjugateGradientSolver(operator, 0.1).solve(tf.constant(_vectors()))
    with pytest.raises(errors.SolverError, match="negative along a direction"):
        nystroem.NystroemSolver(operator, 0.1, rank=20)
    found = explicit.ExplicitSolver(operator, 0.01).solve(tf.constant(_vectors()))
    np.testing.assert_allclose(found.values @ (matrix + 0.01 * np.eye(_P)), _vectors(), atol=1e-8)


def test_a_singular_curvature_needs_damping_or_its_pseudo_inverse():
    matrix = _matrix(np.concatenate([np.zeros(3), np.linspace(1, 2, _P - 3)]))
    operator = operators.DenseOperator(matrix)
    with pytest.raises(errors.SolverError, match="3 of 40 eigenvalues that are zero with damping 0"):
        explicit.ExplicitSolver(operator)
    found = explicit.ExplicitSolver(operator, pseudo_inverse=True).solve(tf.constant(_vectors()))
    np.testing.assert_allclose(found.values, _vectors() @ np.linalg.pinv(matrix), atol=1e-9)
    assert (found.residuals > 0.01).all()


def test_lanczos_keeps_the_largest_moduli_with_their_residuals():
    """Keeping the smallest that the space shows is a known mistake; so is dropping negative ones."""
    eigenvalues = np.concatenate([[5.0, -4.0, 3.0], np.linspace(-0.1, 0.1, _P - 3)])
    matrix = _matrix(eigenvalues)
    solver = krylov.LanczosSolver(operators.DenseOperator(matrix), 0.5, num_eigenvalues=3, num_steps=20)
    np.testing.assert_allclose(solver.eigenvalues, [5.0, -4.0, 3.0], atol=1e-8)
    vectors = solver.eigenvectors.numpy()
    errors_found = np.linalg.norm(vectors @ matrix - solver.eigenvalues[:, None] * vectors, axis=1)
    np.testing.assert_allclose(solver.eigen_residuals, errors_found, atol=1e-7)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(3), atol=1e-10)
    projector = vectors.T @ np.diag(1 / (np.array([5.0, -4.0, 3.0]) + 0.5)) @ vectors
    np.testing.assert_allclose(solver.solve(tf.constant(_vectors())).values, _vectors() @ projector, atol=1e-7)


def test_lanczos_with_complement_divides_the_rest_by_the_damping():
    matrix = _matrix(np.concatenate([[5.0, 4.0, 3.0], np.zeros(_P - 3)]))
    solver = krylov.LanczosSolver(operators.DenseOperator(matrix), 0.5, num_eigenvalues=3, complement=True)
    truth = np.linalg.solve(matrix + 0.5 * np.eye(_P), _vectors().T).T
    found = solver.solve(tf.constant(_vectors()))
    np.testing.assert_allclose(found.values, truth, atol=1e-7)
    assert found.converged.all()


def test_a_krylov_space_that_ends_early_is_exact():
    matrix = _matrix(np.repeat([3.0, 1.0], _P // 2))
    solver = krylov.LanczosSolver(operators.DenseOperator(matrix), 0.0, num_eigenvalues=2, num_steps=30)
    np.testing.assert_allclose(solver.eigenvalues, [3.0, 1.0], atol=1e-9)


def test_nystroem_of_low_rank_leaves_a_residual_that_it_reports():
    matrix = _positive()
    solver = nystroem.NystroemSolver(operators.DenseOperator(matrix), 0.5, rank=15)
    found = solver.solve(tf.constant(_vectors()))
    true = np.linalg.norm(found.values.numpy() @ (matrix + 0.5 * np.eye(_P)) - _vectors(), axis=1)
    np.testing.assert_allclose(found.residuals, true / np.linalg.norm(_vectors(), axis=1), rtol=1e-6)
    assert (found.residuals < 0.9).all()
    assert (found.residuals > 1e-3).all()


def _quadratic(curvature, num=4):
    """One parameter with second derivative `curvature` in every example."""
    module = tf.Module()
    module.w = tf.Variable([[0.3]], dtype=tf.float64)
    target = targets.of(module, loss="squared_error", measured="output", predict=lambda x: x @ module.w)
    inputs = np.full((num, 1), np.sqrt(curvature))
    plan = plans.make(target, (inputs, np.zeros(num)))
    return operators.Curvature(plan, (inputs, np.zeros(num)))


def test_the_published_recursion_gives_its_published_numbers():
    """H = 2, scale = 10, damp = 0.01: 2.907139 after 3 steps, 4.7619048 in the limit, which is 1 / (H + damp scale)."""
    for depth, expected in ((3, 2.907139), (400, 4.7619048)):
        config = lissa.LissaConfig(depth, scale=10.0, damp=0.01, published=True)
        solver = lissa.LissaSolver(_quadratic(2.0), config)
        found = solver.solve(tf.constant([[1.0]], tf.float64)).values.numpy()[0, 0]
        np.testing.assert_allclose(10 * found, expected, rtol=1e-7)
        assert solver.damping == pytest.approx(0.1)
    np.testing.assert_allclose(found, 1 / (2 + 0.1), rtol=1e-7)


def test_our_recursion_has_the_damping_that_was_asked_for():
    solver = lissa.LissaSolver(_quadratic(2.0), lissa.LissaConfig(400, scale=10.0, damp=0.01))
    found = solver.solve(tf.constant([[1.0]], tf.float64))
    np.testing.assert_allclose(found.values, [[1 / 2.01]], rtol=1e-9)
    assert found.converged.all()
    assert found.num_iterations == 400


def _mlp_curvature():
    case = models.ALL["mlp"]()
    plan = plans.make(case.target, (case.inputs, case.labels))
    return operators.Curvature(plan, (case.inputs, case.labels), "gauss_newton")


def test_lissa_averages_its_repeats_towards_the_inverse():
    """Batches of all examples leave no chance: the limit is the damped inverse."""
    curvature = _mlp_curvature()
    vectors = _vectors(3, curvature.size)
    truth = explicit.ExplicitSolver(curvature, 0.1).solve(tf.constant(vectors)).values
    config = lissa.LissaConfig(500, damp=0.1, scale=None, step_batch_size=7)
    np.testing.assert_allclose(
        lissa.LissaSolver(curvature, config).solve(tf.constant(vectors)).values, truth, rtol=1e-3
    )
    stochastic = [
        lissa.LissaSolver(curvature, lissa.LissaConfig(300, r, 0.1, None)).solve(tf.constant(vectors)) for r in (1, 8)
    ]
    far = [np.linalg.norm(found.values - truth) / np.linalg.norm(truth) for found in stochastic]
    assert far[1] < far[0]
    assert far[1] < 0.3


def test_lissa_counts_the_weight_decay_of_every_step():
    case = models.ALL["mlp"]()
    target = dataclasses.replace(case.target, weight_decay=(0.5,) * 4)
    plan = plans.make(target, (case.inputs, case.labels))
    curvature = operators.Curvature(plan, (case.inputs, case.labels), "gauss_newton")
    vectors = tf.constant(_vectors(2, curvature.size))
    truth = explicit.ExplicitSolver(curvature, 0.1).solve(vectors).values
    config = lissa.LissaConfig(300, damp=0.1, scale=20.0, step_batch_size=7)
    found = lissa.LissaSolver(curvature, config).solve(vectors).values
    np.testing.assert_allclose(found, truth, atol=1e-3 * np.abs(truth).max())


def test_lissa_stops_when_it_has_settled():
    config = lissa.LissaConfig(5000, damp=0.1, scale=None, step_batch_size=7, tolerance=1e-3)
    curvature = _mlp_curvature()
    vectors = tf.constant(_vectors(1, curvature.size))
    found = lissa.LissaSolver(curvature, config).solve(vectors)
    truth = explicit.ExplicitSolver(curvature, 0.1).solve(vectors).values
    assert found.num_iterations < 5000
    np.testing.assert_allclose(found.values, truth, rtol=0, atol=0.02 * np.abs(truth).max())


def test_lissa_takes_no_further_repeats_once_their_mean_has_settled():
    """With batches of all examples every repeat is the first one again."""
    vectors = tf.constant([[1.0]], tf.float64)
    config = lissa.LissaConfig(400, r=8, damp=0.01, scale=10.0, step_batch_size=3, tolerance=1e-6)
    found = lissa.LissaSolver(_quadratic(2.0), config).solve(vectors)
    once = lissa.LissaSolver(_quadratic(2.0), dataclasses.replace(config, r=1)).solve(vectors)
    np.testing.assert_allclose(found.values, [[1 / 2.01]], rtol=1e-5)
    assert found.num_iterations == 2 * once.num_iterations
    every = lissa.LissaSolver(_quadratic(2.0), dataclasses.replace(config, tolerance=0.0)).solve(vectors)
    assert every.num_iterations == 8 * 400


def test_a_scale_that_was_chosen_is_doubled_where_it_diverges(monkeypatch):
    monkeypatch.setattr(lissa.LissaSolver, "_find_scale", lambda self: 0.25)
    solver = lissa.LissaSolver(_quadratic(2.0), lissa.LissaConfig(500, damp=0.5, scale=None))
    found = solver.solve(tf.constant([[1.0]], tf.float64))
    np.testing.assert_allclose(found.values, [[1 / 2.5]], rtol=1e-9)
    assert (solver.scale, solver.damping) == (2.0, 0.5)
    again = solver.solve(tf.constant([[1.0]], tf.float64))
    np.testing.assert_array_equal(again.values, found.values)
    assert again.num_iterations == found.num_iterations
    monkeypatch.setattr(lissa.LissaSolver, "_find_scale", lambda self: 2.0**-12)
    never = lissa.LissaSolver(_quadratic(2.0), lissa.LissaConfig(500, damp=0.5, scale=None))
    with pytest.raises(errors.SolverError, match="or the damped curvature is not positive"):
        never.solve(tf.constant([[1.0]], tf.float64))
    assert never.scale == 0.25


def test_lissa_with_one_seed_is_the_same():
    curvature, vectors = _mlp_curvature(), None
    vectors = tf.constant(_vectors(1, curvature.size))
    config = lissa.LissaConfig(50, damp=0.1, scale=None)
    found = [lissa.LissaSolver(curvature, config).solve(vectors).values for _ in range(2)]
    np.testing.assert_array_equal(*found)


def test_a_scale_that_is_too_small_diverges_and_says_so():
    with pytest.raises(errors.SolverError, match=r"LiSSA diverges: after \d+ steps .* the scale 0.5 is below"):
        lissa.LissaSolver(_quadratic(2.0), lissa.LissaConfig(500, scale=0.5)).solve(tf.constant([[1.0]], tf.float64))
    with pytest.raises(errors.SolverError, match="curvature of the batches is zero"):
        lissa.LissaSolver(_quadratic(0.0), lissa.LissaConfig(scale=None))


def test_settings_that_mean_nothing_are_refused():
    operator = operators.DenseOperator(_positive())
    with pytest.raises(errors.InvalidArgumentError, match=r"damping -1.0: must be a number from 0 up"):
        explicit.ExplicitSolver(operator, -1.0)
    with pytest.raises(errors.InvalidArgumentError, match=r"tolerance 2\.0"):
        conjugate_gradient.ConjugateGradientSolver(operator, 0.1, tolerance=2.0)
    with pytest.raises(errors.InvalidArgumentError, match="num_eigenvalues 0: must be from 1"):
        krylov.LanczosSolver(operator, 0.1, num_eigenvalues=0)
    with pytest.raises(errors.InvalidArgumentError, match="complement=True divides by the damping"):
        krylov.LanczosSolver(operator, 0.0, num_eigenvalues=3, complement=True)
    lone = krylov.LanczosSolver(
        operators.DenseOperator(_matrix(np.concatenate([[1.0], np.zeros(_P - 1)]))), 0.0, num_eigenvalues=2, num_steps=2
    )
    with pytest.raises(errors.SolverError, match=r"a kept eigenvalue plus the damping 0\.0 is zero"):
        lone.solve(tf.constant(_vectors()))
    with pytest.raises(errors.InvalidArgumentError, match=r"damping 0.0: the Nystroem approximation divides by it"):
        nystroem.NystroemSolver(operator, 0.0)
    with pytest.raises(errors.InvalidArgumentError, match="rank 41: must be from 1 to the 40"):
        nystroem.NystroemSolver(operator, 0.1, rank=41)
    for option, message in (
        ({"recursion_depth": 0}, "recursion_depth 0"),
        ({"scale": 0.0}, "scale 0.0: must be a number above 0"),
        ({"tolerance": 1.0}, "tolerance 1.0"),
        ({"damp": -0.1}, "damping -0.1"),
    ):
        with pytest.raises(errors.InvalidArgumentError, match=message):
            lissa.LissaConfig(**option)
    with pytest.raises(errors.MismatchError, match=r"vectors of shape \(2, 3\): expected \[R, 40\]"):
        explicit.ExplicitSolver(operator, 0.1).solve(tf.zeros([2, 3], tf.float64))
    big = operators.DenseOperator(np.zeros((1, 1)))
    big.__class__ = type("Big", (operators.DenseOperator,), {"size": property(lambda self: 10**6)})
    with pytest.raises(errors.InvalidArgumentError, match="1000000 parameters: a curvature is written out for 20000"):
        explicit.ExplicitSolver(big)


def test_every_solver_satisfies_the_one_interface():
    solver: solutions.Solver
    for solver in _solvers(_positive(), 0.1).values():
        found = solver.solve(tf.constant(_vectors(2)))
        assert found.values.shape == (2, _P)
        assert found.residuals.shape == found.converged.shape == (2,)
