"""Estimated Frobenius norms, of Jacobians and Hessians, against exact ones, within their standard errors."""

import numpy as np
import pytest
import tensorflow as tf

from estimators import errors
from estimators.jacobian import functions, hutchinson, input_hessian, keys, lanczos, normalisations
from tests.estimators.jacobian import networks


@pytest.mark.parametrize("normalisation", ["none", "logsoftmax"])
def test_estimates_lie_within_their_standard_errors(normalisation):
    function, inputs, labels = networks.case("residual", num=40)
    jacobians = networks.dense_jacobians(function.predict, inputs)
    slopes = normalisations.matrices(normalisation, function.predict(tf.constant(inputs)).numpy(), labels)
    truth = np.square(slopes @ jacobians).sum(axis=(1, 2))
    found = hutchinson.frobenius_norms(function, (inputs, labels), normalisation, num_samples=200, seed=3)
    off = (found.squares - truth) / found.squares_standard_errors
    # 40 standard normal numbers: their mean square is 1 with a standard error of sqrt(2 / 40).
    assert abs(np.square(off).mean() - 1) < 4 * np.sqrt(2 / 40)
    assert abs(off.mean()) < 4 / np.sqrt(40)
    np.testing.assert_allclose(found.values, np.sqrt(found.squares))
    np.testing.assert_allclose(found.standard_errors, found.squares_standard_errors / (2 * found.values))


def test_rows_that_are_orthogonal_are_estimated_exactly():
    matrix = np.diag([1.0, 2.0, 3.0])
    function, inputs = networks.linear(matrix, num=2)
    found = hutchinson.frobenius_norms(function, (inputs, [0, 1]), num_samples=3)
    np.testing.assert_allclose(found.values, 14**0.5)
    np.testing.assert_allclose(found.standard_errors, 0, atol=1e-12)


def test_the_variance_is_that_of_the_formula():
    matrix = np.random.default_rng(0).normal(size=(4, 5))
    function, inputs = networks.linear(matrix, num=20)
    found = hutchinson.frobenius_norms(function, (inputs, np.zeros(20, int)), num_samples=500)
    products = matrix @ matrix.T
    variance = 2 * (np.square(products).sum() - np.square(np.diag(products)).sum())
    np.testing.assert_allclose(np.square(found.squares_standard_errors).mean() * 500, variance, rtol=0.05)


@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_signs_belong_to_examples(batch_size):
    function, inputs, labels = networks.case("convolutional")
    whole = hutchinson.frobenius_norms(function, (inputs, labels), num_samples=4)
    part = hutchinson.frobenius_norms(function, (inputs[:5], labels[:5]), num_samples=4, batch_size=batch_size)
    np.testing.assert_allclose(part.values, whole.values[:5], rtol=1e-10)
    other = hutchinson.frobenius_norms(function, (inputs, labels), num_samples=4, seed=1)
    assert (other.values != whole.values).all()


def test_standard_errors_of_two_samples_by_hand():
    matrix = np.array([[1.0, 2.0], [3.0, 1.0]])
    function, inputs = networks.linear(matrix, num=20)
    found = hutchinson.frobenius_norms(function, (inputs, np.zeros(20, int)), num_samples=2)
    # The squares are |r_1 + r_2|^2 = 25 or |r_1 - r_2|^2 = 5, so that two of them differ by 20 or not at all.
    expected = np.where(found.squares == 15, 10.0, 0.0)
    assert set(found.squares) == {5, 15, 25}
    np.testing.assert_allclose(found.squares_standard_errors, expected, atol=1e-9)


def test_one_sample_has_no_standard_error():
    function, inputs, labels = networks.case("convolutional")
    assert np.isnan(hutchinson.frobenius_norms(function, (inputs, labels), num_samples=1).standard_errors).all()
    with pytest.raises(errors.InvalidArgumentError, match="num_samples 0: must be at least 1"):
        hutchinson.frobenius_norms(function, (inputs, labels), num_samples=0)


def _smooth():
    """A smooth network with its written-out Hessians by the input."""
    first, second = (np.random.default_rng(k).normal(size=shape) for k, shape in enumerate([(6, 8), (8, 3)]))
    inputs, labels = np.random.default_rng(2).normal(size=(30, 6)), np.random.default_rng(3).integers(0, 3, 30)
    function = functions.of(lambda x: tf.tanh(x @ first) @ second, inputs)

    def hessians(name, only):
        rows = []
        for k in range(30):
            x = tf.constant(inputs[k : k + 1])
            with tf.GradientTape(persistent=True) as tape:
                tape.watch(x)
                with tf.GradientTape() as inner:
                    inner.watch(x)
                    value = normalisations.apply(name, function.predict(x), tf.constant(labels[k : k + 1]), only)
                gradient = inner.gradient(value, x)
            rows.append(tape.jacobian(gradient, x, experimental_use_pfor=False).numpy().reshape([6, 6]))
        return np.array(rows)

    return function, inputs, labels, hessians


@pytest.mark.parametrize(
    ("of", "name", "only"), [("crossentropy", "crossentropy", False), ("target_logit", "none", True)]
)
def test_hessians_by_the_input(of, name, only):
    function, inputs, labels, hessians = _smooth()
    truth = hessians(name, only)
    values = np.linalg.eigvalsh(truth)
    config = lanczos.Config(tolerance=1e-8, batch_size=8)
    for which, expected in (("largest", values[:, -1]), ("smallest", values[:, 0])):
        found = input_hessian.eigenvalues(function, (inputs, labels), of, which=which, config=config)
        np.testing.assert_allclose(found.values, expected, rtol=1e-7, atol=1e-12)
        assert (np.abs(values - found.values[:, None]).min(axis=1) <= found.residuals + 1e-12).all()
    found = input_hessian.eigenvalues(function, (inputs, labels), of, which="modulus", config=config)
    np.testing.assert_allclose(np.abs(found.values), np.linalg.norm(truth, 2, axis=(1, 2)), rtol=1e-7)
    norms = input_hessian.frobenius_norms(function, (inputs, labels), of, num_samples=300)
    off = (norms.squares - np.square(truth).sum(axis=(1, 2))) / norms.squares_standard_errors
    assert abs(np.square(off).mean() - 1) < 4 * np.sqrt(2 / 30)


def test_logits_of_rectifiers_have_no_curvature_and_their_loss_that_of_softmax():
    function, inputs, labels = networks.case("convolutional")
    found = input_hessian.eigenvalues(function, (inputs, labels), "target_logit")
    assert (found.values == 0).all()
    assert found.converged.all()
    jacobians = networks.dense_jacobians(function.predict, inputs)
    slopes = normalisations.matrices("softmax", function.predict(tf.constant(inputs)).numpy(), labels)
    expected = np.linalg.eigvalsh(jacobians.transpose(0, 2, 1) @ slopes @ jacobians)[:, -1]
    config = lanczos.Config(tolerance=1e-7)
    found = input_hessian.eigenvalues(function, (inputs, labels), config=config)
    np.testing.assert_allclose(found.values, expected, rtol=1e-9)
    with pytest.raises(errors.InvalidArgumentError, match="of='loss': expected one of crossentropy, target_logit"):
        input_hessian.eigenvalues(function, (inputs, labels), "loss")


def test_keys_belong_to_all_of_their_numbers():
    first = keys.generator(0, "a", 1, 2).normal()
    assert keys.generator(0, "a", 1, 2).normal() == first
    others = [(1, "a", 1, 2), (0, "b", 1, 2), (0, "a", 2, 1), (0, "a", 1), (0, "a", 1 + 2**32, 2), (0, "a", -1, 2)]
    drawn = [keys.generator(*other).normal() for other in others]
    assert len({first, *drawn}) == 7
    state = np.random.get_state()[1].copy()
    keys.normals(0, "a", np.arange(3), 4)
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    assert set(np.unique(keys.signs(0, "a", np.arange(9), (4, 5)))) == {-1, 1}
