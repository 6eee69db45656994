"""K-FAC and EK-FAC against Fisher matrices written out, and against what is known to go wrong in them."""

import dataclasses

import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from estimators import errors, losses, parameters
from estimators.curvature import blocks, conjugate_gradient, explicit, kronecker, neumann, operators
from estimators.derivatives import contributions, layouts, per_example, plans
from tests.estimators import models
from tests.reference import kronecker as reference

_CASES = [
    "mlp",
    "transposed_dense",
    "tokens",
    "tied",
    "conv2d_strided",
    "conv1d_strided",
    "einsums",
    "sonnet_batch_norm",
]


def _plan(case, decay=0.0):
    decays = (decay,) * len(case.target.parameters)
    target = dataclasses.replace(case.target, weight_decay=decays)
    return plans.make(target, (case.inputs, case.labels))


def _gradients(plan, case):
    """For each label given to all examples, [B, *shape] for each parameter."""
    compute = per_example.make_gradients(plan)
    rows = [compute(case.inputs, np.full(len(case.labels), label)) for label in range(3)]
    return [parameters.unflatten(tf.cast(some, tf.float64), plan.target.parameters) for some in rows]


def _expected_square(plan, case, one, by_label):
    """E[(Q_A^T G Q_S)^2] over examples and the model's labels, gradient by gradient."""
    probabilities = tf.nn.softmax(tf.cast(plan.target.predict(case.inputs), tf.float64)).numpy()
    total = 0.0
    for label, tensors in enumerate(by_label):
        if isinstance(one.block, blocks.FormedBlock):
            rows = tf.reshape(tensors[one.block.position], [7, -1]).numpy() @ one.inputs
        else:
            rows = np.einsum("gki,bgkl,glo->bgio", one.inputs, one.block.matrices(tensors).numpy(), one.outputs)
        weights = probabilities[:, label].reshape(-1, *[1] * (rows.ndim - 1))
        total = total + np.mean(weights * rows**2, axis=0)
    return total


@pytest.mark.parametrize("name", _CASES)
def test_eigenvalues_are_the_second_moments_along_the_eigenvectors(name):
    case = models.ALL[name]()
    plan = _plan(case)
    factors = kronecker.fit(plan, (case.inputs, case.labels), labels="expected", batch_size=3)
    tolerance = 1e-10 if case.target.dtype == tf.float64 else 1e-4
    by_label = _gradients(plan, case)
    for one in factors.blocks:
        expected = _expected_square(plan, case, one, by_label)
        np.testing.assert_allclose(one.moments, expected, atol=tolerance * expected.max())


@pytest.mark.parametrize("corrected", [False, True])
def test_both_are_the_matrices_written_out(corrected):
    """A is a mean over places and S a sum, in rows with ones behind; wrong counts of places are a known mistake."""
    case = models.ALL["tokens"]()  # v [5, 3] behind w [4, 5], b [5] at each of 6 places
    b, v, w = (variable.numpy() for variable in case.target.variables)
    hidden = np.tanh(case.inputs @ w + b)
    probabilities = scipy.special.softmax(hidden.sum(axis=1) @ v, axis=1)
    outer = probabilities - np.eye(3)[:, None, :]
    inner = (outer @ v.T)[:, :, None, :] * (1 - hidden**2)
    rows = np.concatenate([case.inputs, np.ones((7, 6, 1))], axis=2)
    layers = [
        reference.layer(rows, inner, probabilities.T)[corrected],
        reference.layer(hidden.sum(axis=1)[:, None], outer[:, :, None], probabilities.T)[corrected],
    ]
    positions = [np.concatenate([20 + np.arange(20), np.arange(5)]), 5 + np.arange(15)]
    truth = reference.joined(layers, positions, 40) + (0.05 + 0.1) * np.eye(40)
    plan = _plan(case, decay=0.05)
    factors = kronecker.fit(plan, (case.inputs, case.labels), labels="expected", batch_size=3)
    found = _written_out(plan, factors, 0.1, corrected)
    np.testing.assert_allclose(found, np.linalg.inv(truth), atol=1e-10 * np.abs(found).max())


@pytest.mark.parametrize("name", _CASES)
def test_every_parameter_is_in_one_block(name):
    case = models.ALL[name]()
    factors = kronecker.fit(_plan(case), (case.inputs, case.labels))
    positions = [position for one in factors.blocks for position in one.block.positions]
    assert sorted(positions) == list(range(len(case.target.parameters)))


def test_biases_join_their_kernels_unless_decayed_otherwise():
    case = models.ALL["mlp"]()
    names = [p.name for p in case.target.parameters]
    factors = kronecker.fit(_plan(case), (case.inputs, case.labels))
    assert [[names[k] for k in one.block.positions] for one in factors.blocks] == [
        ["weights/v", "weights/c"],
        ["weights/w", "weights/b"],
    ]
    target = dataclasses.replace(case.target, weight_decay=(0.0, 0.0, 0.1, 0.1))
    factors = kronecker.fit(plans.make(target, (case.inputs, case.labels)), (case.inputs, case.labels))
    assert len(factors.blocks) == 4


def test_a_bias_of_one_of_two_uses_is_no_row_of_their_kernel():
    case = models._functional(lambda x, w, b, v: tf.tanh(tf.tanh(x @ w + b) @ w) @ v, (5,), w=(5, 5), b=(5,), v=(5, 3))
    plan = _plan(case)
    factors = kronecker.fit(plan, (case.inputs, case.labels), labels="expected")
    assert len(factors.blocks) == 3
    by_label = _gradients(plan, case)
    for one in factors.blocks:
        np.testing.assert_allclose(one.moments, _expected_square(plan, case, one, by_label), atol=1e-12)


def test_every_batch_draws_labels_of_its_own():
    """One example over and over, one in each batch: labels come as often as the model says."""
    case, num = models.ALL["transposed_dense"](), 300
    repeated = (np.repeat(case.inputs[:1], num, axis=0), np.repeat(case.labels[:1], num))
    plan = plans.make(case.target, repeated)
    factors = kronecker.fit(plan, repeated, labels="sampled", batch_size=1)
    p = tf.nn.softmax(case.target.predict(case.inputs[:1])).numpy()[0]
    lengths = np.sum(case.inputs[0] ** 2) * np.sum((p - np.eye(3)) ** 2, axis=1)  # |gradient|^2 by label
    mean = p @ lengths
    bound = 4 * np.sqrt(p @ (lengths - mean) ** 2 / num)
    assert abs(factors.blocks[0].moments.sum() - mean) < bound
    assert np.abs(lengths - mean).min() > bound  # one label for all would be seen


def test_labels_are_the_same_in_batches_of_any_size(monkeypatch):
    monkeypatch.setattr(kronecker, "_DRAWN_TOGETHER", 4)
    case = models.ALL["mlp"]()
    plan = plans.make(case.target, (case.inputs, case.labels))
    first, *others = (kronecker.fit(plan, (case.inputs, case.labels), batch_size=size, seed=3) for size in (7, 1, 3))
    for found in others:
        for one, other in zip(first.blocks, found.blocks, strict=True):
            np.testing.assert_allclose(np.sum(other.moments), np.sum(one.moments), rtol=1e-10)
            np.testing.assert_allclose(np.sum(other.products), np.sum(one.products), rtol=1e-10)
    another = kronecker.fit(plan, (case.inputs, case.labels), seed=4)
    assert abs(np.sum(another.blocks[0].moments) / np.sum(first.blocks[0].moments) - 1) > 1e-3


def test_one_dense_layer_with_one_example_is_exact():
    """With one example, or one input for all, the Fisher matrix of a dense layer is a Kronecker product."""
    case = models.ALL["transposed_dense"]()
    inputs = np.repeat(case.inputs[:1], 7, axis=0)
    plan = plans.make(case.target, (inputs, case.labels))
    truth = operators.explicit(operators.Curvature(plan, (inputs, case.labels), "gauss_newton"))
    vectors = np.random.default_rng(0).normal(size=(4, len(truth)))
    solved = np.linalg.solve(truth + 0.1 * np.eye(len(truth)), vectors.T).T
    factors = kronecker.fit(plan, (inputs, case.labels), labels="expected")
    for corrected in (True, False):
        solver = kronecker.KroneckerSolver(plan, factors, 0.1, eigenvalue_correction=corrected)
        np.testing.assert_allclose(solver.solve(tf.constant(vectors)).values, solved, rtol=1e-9)


def _written_out(plan, factors, damping, corrected):
    """The approximate inverse as a matrix, from its action."""
    solver = kronecker.KroneckerSolver(plan, factors, damping, eigenvalue_correction=corrected)
    return solver.solve(tf.eye(plan.target.num_parameters, dtype=plan.target.dtype)).values.numpy()


@pytest.mark.parametrize("name", ["mlp", "conv2d_strided", "tied_convolution", "keras_zoo", "einsums", "embedding"])
def test_the_inverse_is_symmetric_positive_and_its_root_squares_to_it(name):
    case = models.ALL[name]()
    plan = _plan(case, decay=0.01)
    factors = kronecker.fit(plan, (case.inputs, case.labels))
    inverse = _written_out(plan, factors, 0.1, True)
    tolerance = 1e-9 if case.target.dtype == tf.float64 else 1e-4
    np.testing.assert_allclose(inverse, inverse.T, atol=tolerance * inverse.max())
    assert np.linalg.eigvalsh((inverse + inverse.T).astype(np.float64)).min() > 0
    solver = kronecker.KroneckerSolver(plan, factors, 0.1)
    root = solver.inverse_root(tf.eye(len(inverse), dtype=plan.target.dtype)).numpy()
    np.testing.assert_allclose(root @ root, inverse, atol=tolerance * inverse.max())


def test_the_correction_brings_the_model_closer_to_the_fisher_matrix():
    """In its eigenvectors EK-FAC has the best diagonal there is (George et al., 2018)."""
    case = models.ALL["mlp"]()
    plan = _plan(case)
    fisher = operators.explicit(operators.Curvature(plan, (case.inputs, case.labels), "gauss_newton"))
    factors = kronecker.fit(plan, (case.inputs, case.labels), labels="expected")
    distances = [
        np.linalg.norm(
            np.linalg.inv(_written_out(plan, factors, 1e-3, corrected)) - 1e-3 * np.eye(len(fisher)) - fisher
        )
        for corrected in (True, False)
    ]
    assert distances[0] < distances[1]


@pytest.mark.parametrize("num_places", [2, 40])
def test_gradients_are_rotated_alike_before_and_after_places_are_summed(num_places):
    """Few places are rotated before they are summed, many after."""
    generator = np.random.default_rng(0)
    rows, cotangents = (tf.constant(generator.normal(size=(3, 2, num_places, size))) for size in (6, 4))
    layout = layouts.Layout((2, 6, 4), (2, 6, 4), (0,), (1,), (2,))
    block = blocks.KroneckerBlock(0, None, layout)
    rotation = [tf.constant(generator.normal(size=(2, size, size))) for size in (6, 4)]
    found = block.rotated_gradients({0: [contributions.Product(layout, rows, cotangents)]}, rotation)
    expected = np.einsum("bgti,gij,bgto,gop->bgjp", rows, rotation[0], cotangents, rotation[1], optimize=True)
    np.testing.assert_allclose(found, expected, atol=1e-10)
    factors = block.rotated_factors({0: [contributions.Product(layout, rows, cotangents)]}, rotation)
    np.testing.assert_allclose(tf.matmul(*factors, transpose_a=True), expected, atol=1e-10)


def test_labels_are_the_model_s_own_and_not_those_of_the_data():
    case = models.ALL["mlp"]()
    plan = _plan(case)
    expected, data = (kronecker.fit(plan, (case.inputs, case.labels), labels=kind) for kind in ("expected", "data"))
    assert np.abs(expected.blocks[0].moments - data.blocks[0].moments).max() > 1e-3
    many = (np.repeat(case.inputs, 600, axis=0), np.repeat(case.labels, 600))
    sampled = kronecker.fit(plan, many, labels="sampled", batch_size=4200, seed=3)
    again = kronecker.fit(plan, many, labels="sampled", batch_size=4200, seed=3)
    np.testing.assert_array_equal(sampled.blocks[0].moments, again.blocks[0].moments)
    trace = [sum(one.moments.sum() for one in some.blocks) for some in (expected, sampled, data)]
    assert abs(trace[1] / trace[0] - 1) < 0.05 < abs(trace[2] / trace[0] - 1)


def test_means_do_not_depend_on_batches():
    case = models.ALL["conv2d_strided"]()
    plan = _plan(case)
    found = [
        kronecker.fit(plan, (case.inputs, case.labels), labels="expected", batch_size=size) for size in (1, 3, 7, 50)
    ]
    for factors in found[1:]:
        for one, other in zip(factors.blocks, found[0].blocks, strict=True):
            np.testing.assert_allclose(one.moments, other.moments, rtol=1e-8, atol=1e-14)


def test_damping_and_weight_decay_are_added_to_eigenvalues():
    case = models.ALL["mlp"]()
    factors = kronecker.fit(_plan(case), (case.inputs, case.labels))
    one = np.linalg.inv(_written_out(_plan(case, decay=0.2), factors, 0.1, True))
    two = np.linalg.inv(_written_out(_plan(case), factors, 1.3, True))
    np.testing.assert_allclose(two - one, np.eye(len(one)), atol=1e-8)


def test_large_parameters_that_do_not_multiply_have_a_diagonal(monkeypatch):
    monkeypatch.setattr(kronecker, "MAX_WRITTEN_OUT", 10)
    case = models.ALL["embedding"]()
    plan = _plan(case)
    factors = kronecker.fit(plan, (case.inputs, case.labels), labels="expected")
    table = next(one for one in factors.blocks if isinstance(one.block, blocks.FormedBlock))
    assert table.inputs is None
    probabilities = tf.nn.softmax(plan.target.predict(case.inputs)).numpy()
    by_label = _gradients(plan, case)
    expected = sum(
        np.mean(probabilities[:, c, None] * by_label[c][0].numpy().reshape(7, -1) ** 2, axis=0) for c in range(3)
    )
    np.testing.assert_allclose(table.moments, expected, rtol=1e-9)


def test_as_a_preconditioner_it_saves_rounds():
    """With more examples than parameters: without a preconditioner few distinct eigenvalues already take few rounds."""
    case = models.ALL["mlp"]()
    generator = np.random.default_rng(1)
    data = (generator.normal(size=(200, 5)) * [1, 3, 10, 1, 1], generator.integers(0, 3, 200))
    plan = plans.make(case.target, data)
    curvature = operators.Curvature(plan, data, "gauss_newton")
    factors = kronecker.fit(plan, data, labels="expected")
    vectors = tf.constant(np.random.default_rng(0).normal(size=(1, curvature.size)))
    rounds = []
    for preconditioner in (None, kronecker.KroneckerSolver(plan, factors, 1e-3)):
        solver = conjugate_gradient.ConjugateGradientSolver(
            curvature, 1e-3, tolerance=1e-8, preconditioner=preconditioner
        )
        found = solver.solve(vectors)
        rounds.append(found.num_iterations)
        truth = explicit.ExplicitSolver(curvature, 1e-3).solve(vectors).values
        np.testing.assert_allclose(found.values, truth, atol=1e-6 * np.abs(truth).max())
    assert rounds[1] < rounds[0]


def test_the_neumann_series_makes_it_exact():
    case = models.ALL["mlp"]()
    plan = _plan(case)
    curvature = operators.Curvature(plan, (case.inputs, case.labels), "gauss_newton")
    approximate = kronecker.KroneckerSolver(plan, kronecker.fit(plan, (case.inputs, case.labels)), 0.05)
    vectors = tf.constant(np.random.default_rng(0).normal(size=(3, curvature.size)))
    found = neumann.NeumannSolver(curvature, approximate, 0.05, tolerance=1e-6, max_iterations=500).solve(vectors)
    truth = explicit.ExplicitSolver(curvature, 0.05).solve(vectors).values
    assert found.converged.all()
    np.testing.assert_allclose(found.values, truth, atol=1e-4 * np.abs(truth).max())
    short = neumann.NeumannSolver(curvature, approximate, 0.05, tolerance=1e-9, max_iterations=2).solve(vectors)
    assert not short.converged.any()
    with pytest.raises(errors.SolverError, match="the Neumann series diverges: after"):
        neumann.NeumannSolver(curvature, approximate, 0.05, step=100.0, tolerance=1e-9).solve(vectors)
    with pytest.raises(errors.InvalidArgumentError, match="step -1"):
        neumann.NeumannSolver(curvature, approximate, 0.05, step=-1)


def test_residuals_are_told_where_the_curvature_is_given():
    case = models.ALL["mlp"]()
    plan = _plan(case)
    curvature = operators.Curvature(plan, (case.inputs, case.labels), "gauss_newton")
    factors = kronecker.fit(plan, (case.inputs, case.labels))
    vectors = tf.constant(np.random.default_rng(0).normal(size=(2, curvature.size)))
    found = kronecker.KroneckerSolver(plan, factors, 0.1, operator=curvature).solve(vectors)
    matrix = operators.explicit(curvature) + 0.1 * np.eye(curvature.size)
    expected = np.linalg.norm(found.values.numpy() @ matrix - vectors, axis=1) / np.linalg.norm(vectors, axis=1)
    np.testing.assert_allclose(found.residuals, expected, rtol=1e-8)
    assert np.isnan(kronecker.KroneckerSolver(plan, factors, 0.1).solve(vectors).residuals).all()


def test_what_cannot_be_is_refused():
    case = models.ALL["mlp"]()
    plan = _plan(case)
    with pytest.raises(errors.InvalidArgumentError, match="labels 'true': expected one of sampled, expected, data"):
        kronecker.fit(plan, (case.inputs, case.labels), labels="true")
    custom = dataclasses.replace(case.target, loss=losses.find(lambda p, y: tf.reduce_sum(p, 1)))
    with pytest.raises(errors.InvalidArgumentError, match="does not say how the model's own labels are distributed"):
        kronecker.fit(plans.make(custom, (case.inputs, case.labels)), (case.inputs, case.labels))
    factors = kronecker.fit(plan, (case.inputs, case.labels))
    with pytest.raises(errors.SolverError, match=r"has an eigenvalue 0 with damping 0.0"):
        kronecker.KroneckerSolver(plan, _with_zero(factors), 0.0)
    other = models.ALL["regression"]()
    with pytest.raises(errors.MismatchError, match="factors of 39 parameters for a target that has 6"):
        kronecker.KroneckerSolver(plans.make(other.target, (other.inputs, other.labels)), factors, 0.1)
    poisoned = case.inputs.copy()
    poisoned[5] = np.nan
    with pytest.raises(errors.NotFiniteError, match="second moments of gradients are not finite"):
        kronecker.fit(plan, (poisoned, case.labels))


def _with_zero(factors):
    moments = factors.blocks[0].moments.copy()
    moments[0, 0, 0] = 0.0
    return dataclasses.replace(
        factors, blocks=(dataclasses.replace(factors.blocks[0], moments=moments), *factors.blocks[1:])
    )


def test_progress_is_told():
    case, seen = models.ALL["mlp"](), []
    kronecker.fit(_plan(case), (case.inputs, case.labels), batch_size=3, progress=lambda *done: seen.append(done))
    assert seen[0] == (3, 14)
    assert seen[-1] == (14, 14)
